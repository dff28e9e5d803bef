// SPDX-License-Identifier: Apache-2.0
// The MoE layer against a plain loop over tokens and experts, in double.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/moe/layer.h"
#include "conclave/moe/losses/losses.h"
#include "conclave/moe/registry.h"
#include "conclave/moe/routers/topk.h"

namespace {

using namespace conclave;
using namespace conclave::moe;

constexpr int64_t kTokens = 13, kWidth = 6, kExperts = 5, kInner = 7;

std::shared_ptr<MoeLayer> make_layer(const TopKOptions& options) {
  auto router = make_topk_router(options, {.width = kWidth, .num_experts = kExperts, .dtype = at::kDouble});
  auto layer = std::make_shared<MoeLayer>(MoeLayerOptions{.width = kWidth,
                                                          .num_experts = kExperts,
                                                          .expert_width = kInner,
                                                          .shared = {},
                                                          .layer = 0,
                                                          .dtype = at::kDouble},
                                          router);
  nn::initialise(*layer, 0.7, 11);
  return layer;
}

// Sum over the k largest logits of the softmax over them times the expert, token by token.
at::Tensor plain_loop(MoeLayer& layer, const at::Tensor& x, int64_t k) {
  const auto p = layer.named_parameters();
  const auto &router = p["router.weight"], &w13 = p["experts.w13"], &w2 = p["experts.w2"];
  std::vector<at::Tensor> rows;
  for (int64_t t = 0; t < x.size(0); ++t) {
    const auto z = at::linear(x[t], router);
    const auto order = z.detach().argsort(/*stable=*/true, 0, /*descending=*/true);
    std::vector<at::Tensor> selected;
    for (int64_t j = 0; j < k; ++j) selected.push_back(z[order[j].item<int64_t>()]);
    const auto weight = at::stack(selected).softmax(0);
    auto y = x[t].mul(0);
    for (int64_t j = 0; j < k; ++j) {
      const int64_t e = order[j].item<int64_t>();
      const auto h = at::linear(x[t], w13[e]);
      const auto act = at::silu(h.narrow(0, 0, kInner)).mul(h.narrow(0, kInner, kInner));
      y = y.add(at::linear(act, w2[e]).mul(weight[j]));
    }
    rows.push_back(y);
  }
  return at::stack(rows);
}

void expect_near(const at::Tensor& got, const at::Tensor& want) {
  const double scale = std::max(want.abs().max().item<double>(), 1e-3);
  EXPECT_LE(got.sub(want).abs().max().item<double>(), 1e-9 * scale);
}

TEST(MoeLayer, value_and_gradients_equal_the_plain_loop) {
  for (const int64_t k : {int64_t{2}, int64_t{3}}) {
    auto layer = make_layer({.top_k = k});
    const auto x = at::randn({kTokens, kWidth}, at::kDouble).requires_grad_(true);
    const auto probe = at::randn({kTokens, kWidth}, at::kDouble);
    const auto gradients = [&](const at::Tensor& y) {
      layer->zero_grad();
      if (x.grad().defined()) x.mutable_grad() = at::Tensor();
      y.mul(probe).sum().backward();
      std::vector<at::Tensor> all{x.grad().clone()};
      for (const auto& p : layer->parameters()) all.push_back(p.grad().clone());
      return all;
    };
    const auto got = layer->forward(x), want = plain_loop(*layer, x, k);
    expect_near(got, want);
    const auto got_gradients = gradients(got), want_gradients = gradients(want);
    for (size_t i = 0; i < got_gradients.size(); ++i) expect_near(got_gradients[i], want_gradients[i]);
  }
}

TEST(MoeLayer, two_runs_are_bitwise_equal) {
  auto layer = make_layer({.top_k = 2});
  const auto x = at::randn({kTokens, kWidth}, at::kDouble);
  EXPECT_TRUE(layer->forward(x).equal(layer->forward(x)));
}

TEST(MoeLayer, padding_is_not_routed_and_changes_nothing) {
  auto layer = make_layer({.top_k = 2});
  const auto x = at::randn({kTokens, kWidth}, at::kDouble);
  auto padded = ForwardContext::plain(kTokens + 4);
  padded.tokens.num_units = kTokens;
  padded.tokens.row_of_unit_U = at::arange(2, kTokens + 2, at::kLong);
  const auto rows = at::cat({at::randn({2, kWidth}, at::kDouble), x, at::randn({2, kWidth}, at::kDouble)});
  const auto y = layer->run(rows, padded);
  expect_near(y.narrow(0, 2, kTokens), layer->forward(x));
  EXPECT_EQ(y.narrow(0, 0, 2).abs().max().item<double>(), 0.0);
  const auto& plan = std::get<SparsePlan>(padded.traces.at(0).plan.body);
  EXPECT_EQ(plan.requested_E.sum().item<int64_t>(), kTokens * 2);
}

TEST(TopK, ties_go_to_the_lowest_index) {
  auto layer = make_layer({.top_k = 2});
  auto context = ForwardContext::plain(kTokens);
  layer->run(at::zeros({kTokens, kWidth}, at::kDouble), context);
  const auto& plan = std::get<SparsePlan>(context.traces.at(0).plan.body);
  EXPECT_EQ(plan.requested_E[0].item<int64_t>(), kTokens);
  EXPECT_EQ(plan.requested_E[1].item<int64_t>(), kTokens);
}

TEST(TopK, non_finite_logits_stop_the_run_or_are_never_selected) {
  auto x = at::randn({kTokens, kWidth}, at::kDouble);
  x[3].fill_(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THROW(make_layer({.top_k = 2})->forward(x), Error);
  auto masking = make_layer({.top_k = 2, .on_nonfinite = NonFinitePolicy::kMask});
  auto context = ForwardContext::plain(kTokens);
  EXPECT_TRUE(masking->run(x, context).isfinite().all().item<bool>());
  EXPECT_EQ(std::get<SparsePlan>(context.traces.at(0).plan.body).requested_E.sum().item<int64_t>(),
            2 * kTokens - 2);
}

TEST(Capacity, size_follows_the_documented_order_of_operations) {
  EXPECT_EQ(expert_capacity({}, 1.1, 1000, 8, 6), 826);
  EXPECT_EQ(expert_capacity({}, 1.2, 1000, 8, 6), 900);
  try {
    expert_capacity({.min = 0, .rounding = CapacityRounding::kFloor}, 0.5, 7, 9, 1);
    FAIL() << "no slot was left, but nothing was said";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("T = 7"), std::string::npos) << error.what();
  }
}

TEST(Capacity, drops_what_overflows_and_counts_both) {
  auto layer = make_layer({.top_k = 2, .capacity = {.factor = config::Value(0.5), .min = 1}});
  auto context = ForwardContext::plain(kTokens);
  layer->run(at::randn({kTokens, kWidth}, at::kDouble), context);
  const auto& plan = std::get<SparsePlan>(context.traces.at(0).plan.body);
  EXPECT_EQ(plan.requested_E.sum().item<int64_t>(), 2 * kTokens);
  EXPECT_LE(plan.kept_E.max().item<int64_t>(), 3);  // ceil(2 * 13 / 5 * 0.5)
}

TEST(Losses, load_balancing_is_one_at_balance_for_every_k_and_z_loss_matches_a_hand_calculation) {
  RouterTrace trace;
  trace.logits_UE = at::tensor({1.0, 2.0, 3.0}, at::kDouble).view({1, 3});
  EXPECT_NEAR(z_loss_entry().make(ZLossOptions{})->share(trace, {.num_tokens = 1}).item<double>(), 11.611778,
              1e-6);

  // Rows (2,0,0),(0,1,0),(1,0,0),(0,0,.5), top-1: f = (.5,.25,.25), L = 1.096709.
  const auto z =
      at::tensor({2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5}, at::kDouble).view({4, 3});
  trace.probs_UE = z.softmax(-1);
  trace.plan.num_experts = 3;
  trace.plan.body = make_sparse_plan(4, 3, at::arange(4, at::kInt), at::tensor({0, 1, 0, 2}, at::kInt),
                                     at::zeros({4}, at::kInt), at::ones({4}, at::kDouble), {});
  const auto loss = load_balancing_entry().make(LoadBalancingOptions{})->share(trace, {.num_tokens = 4});
  EXPECT_NEAR(loss.item<double>(), 1.096709, 1e-6);
}

TEST(LossFreeBalance, moves_each_bias_against_its_load_and_the_bias_selects_but_never_weighs) {
  const auto bias = at::zeros({5}, at::kFloat);
  const auto updater = loss_free_entry().make(LossFreeOptions{.rate = 0.5});
  updater->apply(bias, {.requested = {4, 2, 2, 1, 1}, .kept = {}}, 0);
  const std::vector<float> got(bias.data_ptr<float>(), bias.data_ptr<float>() + 5);
  EXPECT_EQ(got, (std::vector<float>{-0.5f, 0.0f, 0.0f, 0.5f, 0.5f}));

  auto layer = make_layer({.top_k = 2, .norm_topk_prob = false});
  layer->router().selection_bias()[4].fill_(2.0);  // larger than any difference of probabilities
  auto context = ForwardContext::plain(kTokens);
  layer->run(at::randn({kTokens, kWidth}, at::kDouble), context);
  const auto& trace = context.traces.at(0);
  const auto& plan = std::get<SparsePlan>(trace.plan.body);
  EXPECT_EQ(plan.requested_E[4].item<int64_t>(), kTokens);
  EXPECT_TRUE(plan.weight_N.narrow(0, 0, 1).equal(trace.probs_UE[0].narrow(0, 4, 1)));
}

TEST(Registry, an_unknown_router_is_named_with_the_nearest_one) {
  try {
    builtin().routers.at("topkk");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'topk'"), std::string::npos);
  }
}

}  // namespace
