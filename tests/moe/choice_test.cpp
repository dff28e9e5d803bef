// SPDX-License-Identifier: Apache-2.0
// Choosing experts by one kernel is choosing them stage by stage, in values and gradients.
#include "conclave/ops/choice.h"

#include <ATen/ops/zeros.h>

#include "conclave/core/error.h"
#include "conclave/ops/kernel_table.h"
#include "moe/recorded_law.h"

namespace small {
namespace {

const c10::Device kCpu{c10::DeviceType::CPU};

// While it lives, the CPU's router counts its calls, or is not taken.
class WatchedRouter {
 public:
  explicit WatchedRouter(bool taken) : before_(ops::install_kernels(kCpu.type(), {})) {
    auto table = before_;
    table.router = [this](const ops::RouterPass& pass) {
      ++calls;
      before_.router(pass);
    };
    if (!taken) table.takes_router = [](const ops::TokenChoice&, int64_t, c10::ScalarType) { return false; };
    ops::install_kernels(kCpu.type(), table);
  }
  ~WatchedRouter() { ops::install_kernels(kCpu.type(), before_); }
  WatchedRouter(const WatchedRouter&) = delete;
  int calls = 0;

 private:
  ops::KernelTable before_;
};

std::map<std::string, at::Tensor> results(const DeviceGate& gate, bool biased) {
  const DeviceSize size;
  const auto layer = layer_on(kCpu, gate, size, false);
  if (biased) layer->router().selection_bias().copy_(normal({kBank}, 77).mul(0.2));
  return results_of_step(*layer, kCpu, size, 4);
}

TEST(ChooseExperts, one_pass_is_the_stages) {
  int in_one_pass = 0;
  for (const auto& [name, options] : topk_variants()) {
    for (const bool biased : {false, true}) {
      SCOPED_TRACE(name + (biased ? ", biased" : ""));
      const DeviceGate gate{name, topk_entry(), config::AnyOptions(options)};
      const auto run = [&](bool taken) {
        WatchedRouter router(taken);
        auto all = results(gate, biased);
        EXPECT_LE(router.calls, taken ? 1 : 0);
        in_one_pass += router.calls;
        return all;
      };
      expect_equal(run(true), run(false), 1e-12);
    }
  }
  EXPECT_EQ(in_one_pass, 2 * 10) << "of 12 variants, all but chance and renormalising after drops";
}

// The same tokens go the same ways when a layer is computed again.
TEST(ChooseExperts, choices_are_repeated) {
  const auto layer = layer_on(kCpu, {"topk", topk_entry(), config::AnyOptions(TopKOptions{})}, {}, false);
  auto first = three_documents();
  const auto x = normal({kUnits, kModel}, 3);
  const auto y = layer->run(x, first);
  auto again = three_documents();
  again.replay = {first.traces.at(0).decisions};
  const c10::NoGradGuard no_grad;
  for (auto& p : layer->router().parameters()) p.neg_();  // by which it would choose others
  layer->run(x, again);
  const auto plan = [](const ForwardContext& c) { return std::get<SparsePlan>(c.traces.at(0).plan.body); };
  EXPECT_TRUE(plan(again).expert_N.equal(plan(first).expert_N));
}

TEST(ChooseExperts, what_it_is_not_made_for_is_told) {
  const auto logits = normal({3, 4}, 1);
  EXPECT_FALSE(ops::can_choose_experts(logits.to(at::kBFloat16), {.top_k = 2}));
  EXPECT_FALSE(ops::can_choose_experts(logits, {.top_k = 5}));
  EXPECT_FALSE(ops::can_choose_experts(logits, {.top_k = 2, .num_groups = 3, .topk_groups = 1}));
  EXPECT_THROW(ops::choose_experts(logits, {}, {.top_k = 5}), Error);
  EXPECT_FALSE(ops::can_choose_experts(logits, {.top_k = 0}));
  EXPECT_FALSE(ops::can_choose_experts(logits, {.top_k = 1, .num_groups = 4, .topk_groups = 1})) << "of one";
  EXPECT_TRUE(
      ops::can_choose_experts(logits, {.top_k = 1, .num_groups = 4, .topk_groups = 1, .group_top2 = false}));
  EXPECT_FALSE(ops::can_choose_experts(logits, {.top_k = 2, .num_groups = 2, .topk_groups = 0}));
  EXPECT_THROW(ops::choose_experts(logits, normal({4}, 2), {.top_k = 2}), Error) << "a bias in fp64";
  const auto given = at::zeros({3, 2}, at::kInt);
  EXPECT_THROW(ops::choose_experts(logits, {}, {.top_k = 2}, given.to(at::kLong)), Error);
  EXPECT_THROW(ops::choose_experts(logits, {}, {.top_k = 3}, given), Error);
  EXPECT_THROW(ops::choose_experts(logits, normal({3}, 2).to(at::kFloat), {.top_k = 2}), Error);
  const auto none = ops::choose_experts(logits.narrow(0, 0, 0), {}, {.top_k = 2});
  EXPECT_EQ(none.weight_UK.sizes(), (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(none.counts_E.sum().item<int64_t>(), 0);
}

}  // namespace
}  // namespace small
