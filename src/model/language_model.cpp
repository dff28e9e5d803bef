// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/language_model.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/ops/product.h"

namespace conclave::model {

namespace {

// On the host.
at::Tensor as_long(const std::vector<int32_t>& values, at::IntArrayRef shape) {
  return at::from_blob(const_cast<int32_t*>(values.data()), shape, at::kInt).to(at::kLong);
}

}  // namespace

moe::UnitMap unit_map(const data::Batch& batch, c10::Device device) {
  moe::UnitMap units{
      .num_rows = batch.size(), .num_units = batch.num_tokens, .num_sequences = batch.num_sequences};
  std::vector<int64_t> row, sequence, group, id;
  int64_t current_group = -1, previous_document = -1, previous_sequence = -1;
  for (int64_t i = 0; i < batch.size(); ++i) {
    const int32_t document = batch.document[static_cast<size_t>(i)];
    if (document < 0) continue;
    const int64_t s = i / batch.seq_length;
    if (document != previous_document || s != previous_sequence) ++current_group;
    previous_document = document;
    previous_sequence = s;
    row.push_back(i);
    sequence.push_back(s);
    group.push_back(current_group);
    id.push_back(batch.global_id[static_cast<size_t>(i)]);
  }
  CONCLAVE_CHECK(static_cast<int64_t>(row.size()) == batch.num_tokens,
                 "Batch: num_tokens disagrees with its documents");
  if (batch.num_tokens != batch.size()) units.row_of_unit_U = at::tensor(row, at::kLong).to(device);
  units.sequence_of_unit_U = at::tensor(sequence, at::kLong).to(device);
  units.group_of_unit_U = at::tensor(group, at::kLong);
  units.global_id_U = at::tensor(id, at::kLong);
  return units;
}

Block::Block(const ModelOptions& o, int64_t layer, const moe::Registry& registry, c10::ScalarType dtype,
             std::shared_ptr<comm::Communicator> expert_parallel) {
  attention_norm_ =
      register_module("input_layernorm", std::make_shared<nn::RmsNorm>(o.hidden_size, o.rms_norm_eps, dtype));
  attention_ = register_module(
      "self_attn",
      std::make_shared<nn::Attention>(nn::AttentionOptions{.width = o.hidden_size,
                                                           .num_heads = o.num_attention_heads,
                                                           .num_key_value_heads = o.num_key_value_heads,
                                                           .head_dim = o.head_width(),
                                                           .qk_norm = o.qk_norm,
                                                           .norm_eps = o.rms_norm_eps},
                                      dtype));
  mlp_norm_ = register_module("post_attention_layernorm",
                              std::make_shared<nn::RmsNorm>(o.hidden_size, o.rms_norm_eps, dtype));
  if (!o.is_moe_layer(layer)) {
    mlp_ = register_module("mlp", std::make_shared<nn::SwiGluMlp>(o.hidden_size, o.intermediate_size, dtype));
    return;
  }
  const auto router_dtype = dtype == at::kDouble ? at::kDouble : at::kFloat;
  auto router = registry.routers.at(o.moe->router.type)
                    .make(o.moe->router.options, {.width = o.hidden_size,
                                                  .num_experts = o.moe->num_experts,
                                                  .layer = static_cast<int>(layer),
                                                  .dtype = router_dtype});
  moe_ = register_module(
      "moe",
      std::make_shared<moe::MoeLayer>(
          moe::MoeLayerOptions{.width = o.hidden_size,
                               .num_experts = o.moe->num_experts,
                               .expert_width = o.moe->moe_intermediate_size,
                               .shared = {.width = o.moe->shared_width(), .gate = o.moe->shared_expert_gate},
                               .layer = static_cast<int>(layer),
                               .expert_parallel = std::move(expert_parallel),
                               .gather_tokens = o.moe->dispatcher.type == DispatcherType::kAllGather,
                               .placement = o.moe->dispatcher.placement,
                               .limits = {.rank_budget = o.moe->dispatcher.rank_budget,
                                          .on_overflow = o.moe->dispatcher.on_overflow},
                               .pad_to_capacity = o.moe->dispatcher.pad_to_capacity,
                               .cuda_graph = o.moe->cuda_graph,
                               .dtype = dtype},
          std::move(router)));
}

at::Tensor Block::attend(const at::Tensor& x_BSD, const nn::AttentionInput& attention, nn::KvCache* cache) {
  return x_BSD.add(attention_->run(attention_norm_->forward(x_BSD), attention, cache));
}

at::Tensor Block::feed_forward(const at::Tensor& x_BSD, moe::ForwardContext& context) {
  const auto normed = mlp_norm_->forward(x_BSD);
  return x_BSD.add(moe_ ? moe_->run(normed, context) : mlp_->forward(normed));
}

at::Tensor Block::run(const at::Tensor& x_BSD, const nn::AttentionInput& attention,
                      moe::ForwardContext& context, nn::KvCache* cache) {
  switch (cache ? Recompute::kNone : recompute_) {  // decoding has no backward
    case Recompute::kNone:
      break;
    case Recompute::kSelective:
      return recomputed(attend(x_BSD, attention, nullptr), context,
                        [this](const at::Tensor& x, moe::ForwardContext& c) { return feed_forward(x, c); });
    case Recompute::kFull:
      return recomputed(x_BSD, context, [this, attention](const at::Tensor& x, moe::ForwardContext& c) {
        return feed_forward(attend(x, attention, nullptr), c);
      });
  }
  return feed_forward(attend(x_BSD, attention, cache), context);
}

LanguageModel::LanguageModel(const ModelOptions& options, int64_t vocab_size, const moe::Registry& registry,
                             uint64_t seed, c10::ScalarType dtype, std::optional<c10::ScalarType> activations,
                             std::shared_ptr<comm::Communicator> expert_parallel)
    : options_(options), dtype_(dtype), activations_(activations.value_or(dtype)) {
  embedding_ = register_tagged("embed_tokens", at::empty({vocab_size, options.hidden_size}, dtype),
                               {.role = nn::ParamRole::kEmbedding});
  for (int64_t layer = 0; layer < options.num_hidden_layers; ++layer) {
    blocks_.push_back(
        register_module(fmt::format("layers_{}", layer),
                        std::make_shared<Block>(options, layer, registry, dtype, expert_parallel)));
  }
  norm_ = register_module("norm",
                          std::make_shared<nn::RmsNorm>(options.hidden_size, options.rms_norm_eps, dtype));
  if (!options.tie_word_embeddings) {
    head_ = register_tagged("lm_head", at::empty({vocab_size, options.hidden_size}, dtype),
                            {.role = nn::ParamRole::kHead});
  }
  nn::initialise(*this, options.initializer_range, seed);
}

nn::AttentionShape LanguageModel::attention_shape() const {
  return {.head_dim = options_.head_width(),
          .rope_theta = options_.rope_theta,
          .dtype = dtype_,
          .stored = activations_,
          .device = device()};
}

const at::Tensor& LanguageModel::head() const {
  return options_.tie_word_embeddings ? embedding_ : head_;
}

at::Tensor LanguageModel::hidden(const data::Batch& batch, moe::ForwardContext& context) {
  const std::vector<int64_t> shape{batch.num_sequences, batch.seq_length};
  context.tokens = unit_map(batch, device());
  const auto attention =
      nn::attention_input(as_long(batch.document, shape), as_long(batch.position, shape),
                          /*causal=*/options_.objective == Objective::kCausalLm, attention_shape());
  auto x_BSD = at::embedding(embedding_, as_long(batch.token, shape).to(device())).to(activations_);
  for (const auto& block : blocks_) x_BSD = block->run(x_BSD, attention, context);
  return norm_->forward(x_BSD);
}

ops::CrossEntropy LanguageModel::loss(const data::Batch& batch, moe::ForwardContext& context) {
  const auto x_TD = hidden(batch, context).reshape({batch.size(), options_.hidden_size});
  const auto target_T = as_long(batch.target, {batch.size()});
  ops::check_targets(target_T, head().size(0));
  return ops::linear_cross_entropy(x_TD, head(), target_T.to(device()));
}

at::Tensor LanguageModel::logits(const data::Batch& batch, moe::ForwardContext& context) {
  return ops::linear(hidden(batch, context), head());
}

void LanguageModel::set_rank_budget(std::optional<int64_t> rows) {
  for (const auto& block : blocks_) {
    if (auto* layer = block->moe()) layer->set_rank_budget(rows);
  }
}

std::vector<moe::Router*> LanguageModel::routers() {
  std::vector<moe::Router*> routers;
  for (const auto& block : blocks_) {
    if (block->moe()) routers.push_back(&block->moe()->router());
  }
  return routers;
}

void LanguageModel::set_recompute(Recompute recompute) {
  for (const auto& block : blocks_) block->set_recompute(recompute);
}

}  // namespace conclave::model
