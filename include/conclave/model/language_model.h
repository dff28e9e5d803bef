// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "conclave/data/batch.h"
#include "conclave/model/decode_state.h"
#include "conclave/model/options.h"
#include "conclave/model/recompute.h"
#include "conclave/moe/layer.h"
#include "conclave/moe/registry.h"
#include "conclave/ops/functions.h"

namespace conclave::model {

// Pre-norm block: x + attention(norm(x)), then x + feed-forward(norm(x)), dense or MoE.
class Block : public nn::Module {
 public:
  Block(const ModelOptions& options, int64_t layer, const moe::Registry& registry, c10::ScalarType dtype,
        std::shared_ptr<comm::Communicator> expert_parallel = {});
  at::Tensor run(const at::Tensor& x_BSD, const nn::AttentionInput& attention, moe::ForwardContext& context,
                 nn::KvCache* cache = nullptr);
  moe::MoeLayer* moe() { return moe_.get(); }  // null in a dense block
  void set_recompute(Recompute recompute) { recompute_ = recompute; }

 private:
  at::Tensor attend(const at::Tensor& x_BSD, const nn::AttentionInput& attention, nn::KvCache* cache);
  at::Tensor feed_forward(const at::Tensor& x_BSD, moe::ForwardContext& context);

  Recompute recompute_ = Recompute::kNone;
  std::shared_ptr<nn::RmsNorm> attention_norm_, mlp_norm_;
  std::shared_ptr<nn::Attention> attention_;
  std::shared_ptr<nn::SwiGluMlp> mlp_;
  std::shared_ptr<moe::MoeLayer> moe_;
};

// Decoder-only language model, or with the objective masked_lm a bidirectional encoder. Legend: B sequences,
// S tokens, T = B * S, D model width, V vocabulary.
class LanguageModel : public nn::Module {
 public:
  // `dtype` of the parameters: fp32, or fp64 for proofs. `activations`: the residual stream; bf16 beside fp32
  // parameters, by default the same type. Router, softmax, statistics of norms and losses are fp32 in either
  // case. `expert_parallel`: ranks that share the experts of every MoE layer, and run the model together;
  // null: all experts are here.
  LanguageModel(const ModelOptions& options, int64_t vocab_size, const moe::Registry& registry, uint64_t seed,
                c10::ScalarType dtype, std::optional<c10::ScalarType> activations = {},
                std::shared_ptr<comm::Communicator> expert_parallel = {});

  // Sum of losses in nats over the batch's targets, and the per-token losses. Fills
  // `context.tokens` and appends one trace per MoE layer.
  ops::CrossEntropy loss(const data::Batch& batch, moe::ForwardContext& context);
  // Logits of every position, [B, S, V].
  at::Tensor logits(const data::Batch& batch, moe::ForwardContext& context);
  // Logits [n, V] of n tokens that continue the document in `state`, which starts at position 0; no gradient.
  // Throws Error when the objective is not causal.
  at::Tensor extend(std::span<const int32_t> tokens, DecodeState& state, moe::ForwardContext& context);
  const ModelOptions& options() const { return options_; }
  // Where the parameters are, and every pass is computed; `to` moves both. Batches come from the host.
  c10::Device device() const { return embedding_.device(); }
  // Routers of the MoE layers, in the order of the traces.
  std::vector<moe::Router*> routers();
  // Rows that a rank may get in each MoE layer from now on (moe::DispatchLimits); the same on all ranks.
  void set_rank_budget(std::optional<int64_t> rows);
  // Of all blocks; changes no value, only memory and time.
  void set_recompute(Recompute recompute);

 private:
  at::Tensor hidden(const data::Batch& batch, moe::ForwardContext& context);  // [B, S, D] after the last norm
  const at::Tensor& head() const;
  nn::AttentionShape attention_shape() const;

  ModelOptions options_;
  c10::ScalarType dtype_, activations_;
  at::Tensor embedding_, head_;  // [V, D]
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<nn::RmsNorm> norm_;
};

// The tokens of a batch as the units that routers see: padding is no unit, a document is a group.
moe::UnitMap unit_map(const data::Batch& batch, c10::Device device);

}  // namespace conclave::model
