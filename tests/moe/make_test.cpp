// SPDX-License-Identifier: Apache-2.0
// Layers from plain structs: the seed decides, nothing global is touched, threads share a layer.
#include <array>
#include <string>
#include <thread>
#include <vector>

#include <ATen/Context.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/moe/make.h"
#include "conclave/moe/routers/topk.h"

namespace {

using namespace conclave::moe;

std::shared_ptr<MoeLayer> plain_layer(uint64_t seed, at::ScalarType dtype = at::kDouble) {
  return make_moe_layer(
      {.width = 6, .num_experts = 5, .expert_width = 7, .shared = {.width = 3, .gate = true}, .dtype = dtype},
      [](const RouterShape& shape) { return make_topk_router({.top_k = 2}, shape); }, seed, 0.5);
}

bool same_parameters(const MoeLayer& a, const MoeLayer& b) {
  const auto p = a.parameters(), q = b.parameters();
  for (size_t i = 0; i < p.size(); ++i) {
    if (!p[i].equal(q[i])) return false;
  }
  return p.size() == q.size();
}

TEST(MakeLayer, the_seed_decides_the_initial_values) {
  EXPECT_TRUE(same_parameters(*plain_layer(3), *plain_layer(3)));
  EXPECT_FALSE(same_parameters(*plain_layer(3), *plain_layer(4)));
}

TEST(MakeLayer, the_router_gets_the_layers_shape) {
  const auto shape = router_shape({.width = 6, .num_experts = 5, .expert_width = 7, .layer = 2});
  EXPECT_EQ(shape.width, 6);
  EXPECT_EQ(shape.num_experts, 5);
  EXPECT_EQ(shape.layer, 2);
  EXPECT_EQ(shape.dtype, at::kFloat);
  EXPECT_EQ(plain_layer(3)->router().parameters().front().scalar_type(), at::kDouble);
}

TEST(MakeLayer, sizes_that_are_not_positive_are_refused_by_name) {
  try {
    make_moe_layer(
        {.width = 6, .num_experts = 0}, [](const RouterShape&) { return nullptr; }, 1);
    FAIL() << "not refused";
  } catch (const conclave::Error& error) {
    EXPECT_NE(std::string(error.what()).find("num_experts (0)"), std::string::npos) << error.what();
  }
}

TEST(MakeLayer, torchs_generator_is_left_alone) {
  at::manual_seed(9);
  const auto expected = at::randn({4});
  at::manual_seed(9);
  plain_layer(3)->forward(at::ones({4, 6}, at::kDouble));
  EXPECT_TRUE(at::randn({4}).equal(expected));
}

TEST(MakeLayer, threads_with_their_own_contexts_share_a_layer) {
  const auto layer = plain_layer(3);
  std::array<at::Tensor, 4> x, want, got;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = at::randn({11 + static_cast<int64_t>(i), 6}, at::kDouble);
    want[i] = layer->forward(x[i]);
  }
  std::vector<std::thread> threads;
  for (size_t i = 0; i < x.size(); ++i) {
    threads.emplace_back([&, i] {
      auto context = ForwardContext::plain(x[i].size(0));
      for (int repeat = 0; repeat < 20; ++repeat) got[i] = layer->run(x[i], context);
    });
  }
  for (auto& thread : threads) thread.join();
  for (size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(got[i].equal(want[i])) << i;
}

TEST(MakeLayer, plain_losses_are_those_of_the_registry) {
  const auto layer = plain_layer(3);
  auto context = ForwardContext::plain(13);
  layer->run(at::randn({13, 6}, at::kDouble), context);
  const StepTotals totals{.num_tokens = 13};
  const auto& trace = context.traces.front();
  const auto balance = make_load_balancing_loss({.weight = 0.25});
  const auto z = make_z_loss({.weight = 0.5});
  EXPECT_EQ(balance->weight(0), 0.25);
  EXPECT_EQ(z->weight(0), 0.5);
  EXPECT_TRUE(balance->share(trace, totals)
                  .equal(load_balancing_entry().make(LoadBalancingOptions{})->share(trace, totals)));
  EXPECT_NEAR(z->share(trace, totals).item<double>(),
              trace.logits_UE.logsumexp(-1).square().mean().item<double>(), 1e-12);
}

}  // namespace
