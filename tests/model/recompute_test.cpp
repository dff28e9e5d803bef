// SPDX-License-Identifier: Apache-2.0
// Recompute changes memory and time, and no value.
#include "conclave/model/recompute.h"

#include <ATen/ops/zeros.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "conclave/comm/counting.h"
#include "conclave/model/language_model.h"

namespace {

using namespace conclave;

constexpr int64_t kRecomputeVocab = 29;

model::ModelOptions options_with(const moe::RouterEntry& router) {
  return {.hidden_size = 12,
          .num_hidden_layers = 3,
          .num_attention_heads = 3,
          .num_key_value_heads = 1,
          .intermediate_size = 10,
          .initializer_range = 0.3,
          .moe = model::MoeOptions{.num_experts = 8,
                                   .moe_intermediate_size = 7,
                                   .first_k_dense_replace = 1,
                                   .router = {router.name, router.defaults()}}};
}

// Two rows: two documents and padding.
data::Batch small_batch() {
  data::Batch batch;
  batch.num_sequences = 2;
  batch.seq_length = 7;
  for (int32_t i = 0; i < 14; ++i) {
    const bool padding = i >= 12;
    batch.token.push_back(padding ? 0 : (5 * i + 3) % kRecomputeVocab);
    batch.target.push_back(padding ? -1 : (7 * i + 1) % kRecomputeVocab);
    batch.document.push_back(padding ? -1 : (i % 7) / 4);
    batch.position.push_back((i % 7) % 4);
    batch.domain.push_back(padding ? -1 : 0);
    batch.global_id.push_back(i);
    batch.num_tokens += !padding;
    batch.num_targets += !padding;
  }
  return batch;
}

// The task loss and something of every differentiable part of every trace, as auxiliary losses use them.
at::Tensor objective(model::LanguageModel& m, moe::ForwardContext& context) {
  auto sum = m.loss(small_batch(), context).sum;
  for (const auto& trace : context.traces) {
    if (trace.logits_UE.defined()) sum = sum.add(trace.logits_UE.square().sum());
    if (trace.probs_UE.defined()) sum = sum.add(trace.probs_UE.pow(3).sum());
    for (const auto& item : trace.tensors) {
      if (item.second.isfinite().all().item<bool>()) sum = sum.add(item.second.square().sum());
    }
  }
  return sum;
}

struct Outcome {
  double value = 0;
  std::vector<at::Tensor> gradients = {};
  std::vector<std::vector<int32_t>> loads = {};
};

Outcome outcome(const moe::RouterEntry& router, model::Recompute recompute, const moe::Registry& registry) {
  model::LanguageModel m(options_with(router), kRecomputeVocab, registry, 5, at::kFloat);
  m.set_recompute(recompute);
  moe::ForwardContext context;
  const auto sum = objective(m, context);
  Outcome out{.value = sum.item<double>()};
  for (const auto& trace : context.traces) {
    if (const auto* plan = std::get_if<moe::SparsePlan>(&trace.plan.body)) {
      out.loads.emplace_back(
          plan->expert_offsets_E1.const_data_ptr<int32_t>(),
          plan->expert_offsets_E1.const_data_ptr<int32_t>() + plan->expert_offsets_E1.numel());
    }
  }
  const size_t layers = context.traces.size();
  sum.backward();
  EXPECT_EQ(context.traces.size(), layers) << "the second pass must not be counted";
  for (const auto& p : nn::tagged_parameters(m)) out.gradients.push_back(p.tensor.grad().clone());
  return out;
}

TEST(Recompute, gives_the_bits_of_no_recompute_for_every_registered_router) {
  const auto registry = moe::builtin();
  for (const auto& router : registry.routers.entries()) {
    const auto want = outcome(router, model::Recompute::kNone, registry);
    for (const auto mode : {model::Recompute::kSelective, model::Recompute::kFull}) {
      const auto got = outcome(router, mode, registry);
      EXPECT_EQ(got.value, want.value) << router.name;
      EXPECT_EQ(got.loads, want.loads) << router.name;
      for (size_t i = 0; i < want.gradients.size(); ++i) {
        EXPECT_TRUE(got.gradients[i].equal(want.gradients[i])) << router.name << ", parameter " << i;
      }
    }
  }
}

// Rows and weights travel once more in the second pass; the counts of the first hold.
TEST(Recompute, exchanges_no_counts_again) {
  comm::run_ranks(2, [](comm::Communicator& world) {
    const auto calls = [&](model::Recompute recompute) {
      const auto traffic = std::make_shared<comm::Traffic>();
      const auto registry = moe::builtin();
      model::LanguageModel m(options_with(registry.routers.at("topk")), kRecomputeVocab, registry, 5,
                             at::kFloat, {}, comm::count_traffic(comm::borrowed(world), {0, 0}, traffic));
      m.set_recompute(recompute);
      moe::ForwardContext context;
      objective(m, context).backward();
      return traffic->calls;
    };
    constexpr int64_t kLayers = 2;
    EXPECT_EQ(calls(model::Recompute::kNone), kLayers * 7);
    EXPECT_EQ(calls(model::Recompute::kFull), kLayers * 10);
  });
}

// Sends every token to another expert each time it chooses; `replays` false is the broken double that asks
// again.
class FickleRouter : public moe::Router {
 public:
  FickleRouter(const moe::RouterShape& shape, bool replays, int& choices)
      : shape_(shape), replays_(replays), choices_(choices) {
    weight_ = register_tagged("weight", at::zeros({shape.num_experts, shape.width}, shape.dtype),
                              {.role = nn::ParamRole::kRouter});
  }
  moe::RoutingPlan route(const at::Tensor& x_UD, const moe::UnitMap& units, const moe::ForwardContext&,
                         moe::RouterTrace& trace) override {
    const int64_t n = x_UD.size(0);
    const auto choose = [&] { return at::zeros({n}, at::kInt).add(choices_++ % 8); };
    const auto expert = replays_ ? trace.decisions.decide(choose) : choose();
    const auto weight = x_UD.mm(weight_.t()).sum(1).add(1);
    const auto unit = at::zeros({n}, at::kInt).add(1).cumsum(0).sub(1).to(at::kInt);
    return {units, 8, moe::make_sparse_plan(n, 8, unit, expert, at::zeros({n}, at::kInt), weight, {})};
  }

 private:
  moe::RouterShape shape_;
  bool replays_;
  int& choices_;
  at::Tensor weight_;
};

int choices_of(bool replays) {
  int choices = 0;
  auto registry = moe::builtin();
  moe::RouterEntry entry;
  entry.name = "fickle";
  entry.defaults = registry.routers.at("topk").defaults;
  entry.caps = [](const config::AnyOptions&) { return moe::Caps{}; };
  entry.make = [&](const config::AnyOptions&, const moe::RouterShape& shape) {
    return std::make_shared<FickleRouter>(shape, replays, choices);
  };
  registry.routers.add(entry);
  outcome(registry.routers.at("fickle"), model::Recompute::kFull, registry);
  return choices;
}

TEST(Recompute, repeats_the_decisions_of_the_first_pass) {
  EXPECT_EQ(choices_of(true), 2) << "two MoE layers choose once each";
  EXPECT_EQ(choices_of(false), 4) << "the broken double chooses again";
}

// Counts the bytes that live in CPU tensors.
class CountingAllocator : public c10::Allocator {
 public:
  CountingAllocator() : inner_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, 255); }

  c10::DataPtr allocate(size_t bytes) override {
    live += static_cast<int64_t>(bytes);
    auto* block = new Block{inner_->allocate(bytes), bytes};
    return {block->data.get(), block, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  static inline int64_t live = 0;
  // Installed for the rest of the process, because tensors of others may outlive a test.
  static void install() { [[maybe_unused]] static auto* const allocator = new CountingAllocator; }

 private:
  struct Block {
    c10::DataPtr data;
    size_t bytes;
  };
  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    live -= static_cast<int64_t>(block->bytes);
    delete block;
  }
  c10::Allocator* inner_;
};

TEST(Recompute, keeps_less_and_full_keeps_less_than_selective) {
  const auto registry = moe::builtin();
  const auto kept = [&](model::Recompute mode) {
    CountingAllocator::install();
    model::LanguageModel m(options_with(registry.routers.at("topk")), kRecomputeVocab, registry, 5,
                           at::kFloat);
    m.set_recompute(mode);
    moe::ForwardContext context;
    const int64_t before = CountingAllocator::live;
    const auto loss = m.loss(small_batch(), context);
    context.traces.clear();
    return CountingAllocator::live - before;
  };
  const auto none = kept(model::Recompute::kNone), selective = kept(model::Recompute::kSelective),
             full = kept(model::Recompute::kFull);
  EXPECT_LT(selective, none);
  EXPECT_LT(full, selective);
}

// spec of ops/expert_mlp.h: beside its inputs the expert layer keeps the pre-activations and nothing else, 4
// T k n bytes in bf16 (the 2 T d bytes of the source are the input itself).
TEST(ExpertMemory, bf16_keeps_the_preactivations_only) {
  CountingAllocator::install();
  constexpr int64_t kTokens = 37, kWidth = 12, kInner = 10, kExperts = 3;
  const auto x = at::zeros({kTokens, kWidth}, at::kBFloat16).set_requires_grad(true);
  const auto s = at::zeros({kTokens}, at::kFloat).set_requires_grad(true);
  const auto w13 = at::zeros({kExperts, 2 * kInner, kWidth}).set_requires_grad(true);
  const auto w2 = at::zeros({kExperts, kWidth, kInner}).set_requires_grad(true);
  const auto index = at::zeros({kTokens}, at::kInt).add(1).cumsum(0).sub(1).to(at::kInt);
  const auto offsets = at::zeros({kTokens + 1}, at::kInt).add(1).cumsum(0).sub(1).to(at::kInt);
  const ops::Rows rows{.source_SD = x,
                       .row_source_A = index,
                       .expert_offsets_E1 = at::tensor({0, 20, 20, static_cast<int>(kTokens)}, at::kInt),
                       .source_offsets_S1 = offsets,
                       .rows_N = index};
  const int64_t before = CountingAllocator::live;
  const auto out = ops::combine_rows(ops::expert_mlp(rows, s, w13, w2), offsets, index);
  const int64_t output_bytes = static_cast<int64_t>(out.nbytes());
  EXPECT_EQ(CountingAllocator::live - before - output_bytes, 2 * kTokens * 2 * kInner);
}

}  // namespace
