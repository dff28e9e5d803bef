// SPDX-License-Identifier: Apache-2.0
// A small MoE layer in double for the tests of gates, its plain-loop expert, and the comparison of value and
// gradients. Legend as in routing_plan.h.
#pragma once
#include <map>
#include <string>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "conclave/moe/layer.h"
#include "conclave/moe/registry.h"
#include "conclave/moe/routers/topk.h"

namespace small {

using namespace conclave;
using namespace conclave::moe;

constexpr int64_t kUnits = 11, kModel = 5, kBank = 6, kHidden = 7;

// Standard normal values that depend on the seed only, not on what other tests drew.
inline at::Tensor normal(at::IntArrayRef sizes, uint64_t seed) {
  auto values = at::empty(sizes, at::kDouble);
  const RandomKey key{.seed = seed};
  for (int64_t i = 0; i < values.numel(); ++i) {
    values.data_ptr<double>()[i] = key.normal(RandomStream::kInit, 0, static_cast<uint64_t>(i));
  }
  return values;
}

inline RouterShape shape(int64_t num_experts = kBank) {
  return {.width = kModel, .num_experts = num_experts, .layer = 3, .dtype = at::kDouble};
}

inline std::shared_ptr<MoeLayer> layer_with(std::shared_ptr<Router> router, int64_t num_experts = kBank) {
  auto layer = std::make_shared<MoeLayer>(MoeLayerOptions{.width = kModel,
                                                          .num_experts = num_experts,
                                                          .expert_width = kHidden,
                                                          .shared = {},
                                                          .layer = 3,
                                                          .dtype = at::kDouble},
                                          std::move(router));
  nn::initialise(*layer, 0.7, 5);
  return layer;
}

// Router weights that start at zero get values, so that they take part.
inline void fill_zero_weights(MoeLayer& layer) {
  const c10::NoGradGuard no_grad;
  for (auto& p : layer.named_parameters()) {
    if (p.key().rfind("router.", 0) == 0 && p.value().eq(0).all().item<bool>()) {
      p.value().copy_(normal(p.value().sizes(), p.key().size()));
    }
  }
}

// Documents of 3, 5 and 3 tokens in two sequences of 8 and 3, with global ids that are no positions.
inline ForwardContext three_documents(Phase phase = Phase::kTrain) {
  auto context = ForwardContext::plain(kUnits, phase);
  context.random = {.seed = 17, .step = 4};
  context.step = 4;
  context.tokens.group_of_unit_U = at::tensor({0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2}, at::kLong);
  context.tokens.sequence_of_unit_U = at::tensor({0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, at::kLong);
  context.tokens.global_id_U = context.tokens.global_id_U.mul(7).add(100);
  context.tokens.num_sequences = 2;
  return context;
}

inline at::Tensor expert_of(MoeLayer& layer, const at::Tensor& x, int64_t e) {
  const auto p = layer.named_parameters();
  const auto h = at::linear(x, p["experts.w13"][e]);
  return at::linear(at::silu(h.narrow(-1, 0, kHidden)).mul(h.narrow(-1, kHidden, kHidden)),
                    p["experts.w2"][e]);
}

inline void close_to(const at::Tensor& got, const at::Tensor& want, const std::string& what) {
  const double scale = std::max(want.abs().max().item<double>(), 1e-3);
  EXPECT_LE(got.sub(want).abs().max().item<double>(), 1e-9 * scale) << what;
}

// Gradients of `objective` for x and every parameter of the layer; zeros where there is none.
inline std::map<std::string, at::Tensor> gradients(MoeLayer& layer, const at::Tensor& x,
                                                   const at::Tensor& objective) {
  layer.zero_grad();
  x.mutable_grad() = at::Tensor();
  objective.backward();
  const auto of = [](const at::Tensor& v) {
    return v.grad().defined() ? v.grad().clone() : v.detach().mul(0);
  };
  std::map<std::string, at::Tensor> all{{"x", of(x)}};
  for (const auto& p : layer.named_parameters()) all[p.key()] = of(p.value());
  return all;
}

// run(x) and reference(x) agree, and so do the gradients of a random linear function of them.
template <class Run, class Reference>
void equal_in_value_and_gradients(MoeLayer& layer, Run run, Reference reference,
                                  const std::string& what = "") {
  const auto x = normal({kUnits, kModel}, 31).requires_grad_(true);
  const auto got = run(x), want = reference(x);
  const auto probe = normal(want.sizes(), 32);
  close_to(got, want, what + " value");
  const auto got_gradients = gradients(layer, x, got.mul(probe).sum());
  for (const auto& [name, gradient] : gradients(layer, x, want.mul(probe).sum())) {
    close_to(got_gradients.at(name), gradient, what + " " + name);
  }
}

// Every stage of the top-k pipeline, alone and together.
inline std::map<std::string, TopKOptions> topk_variants() {
  const GroupLimitOptions two_of_three{.num_groups = 3, .topk_groups = 2};
  // Fewer places than requests: something is always dropped.
  const CapacityOptions tight{.factor = config::Value(0.5), .min = 1};
  auto with = [&tight](CapacityOrder order, bool renormalise, double factor = 0.5) {
    auto capacity = tight;
    capacity.factor = config::Value(factor);
    capacity.order = order;
    capacity.renormalize_after_drop = renormalise;
    return capacity;
  };
  return {
      {"plain", {}},
      {"switch", {.top_k = 1, .norm_topk_prob = false, .jitter_eps = 0.1, .capacity = tight}},
      {"raw", {.top_k = 3, .norm_topk_prob = false, .routed_scaling_factor = 1.7}},
      {"selected", {.score_before_topk = false, .norm_topk_prob = false}},
      {"sigmoid", {.top_k = 3, .score_function = ScoreFunction::kSigmoid, .routed_scaling_factor = 2.5}},
      {"fixed_noise", {.noise = {.type = NoiseType::kGaussian, .std = 0.4}}},
      {"learned_noise", {.top_k = 3, .noise = {.type = NoiseType::kLearnedGaussian, .epsilon = 0.01}}},
      {"top2_sum", {.top_k = 3, .score_function = ScoreFunction::kSigmoid, .group_limited = two_of_three}},
      {"group_max",
       {.group_limited =
            GroupLimitOptions{.num_groups = 3, .topk_groups = 1, .group_score = GroupScore::kMax}}},
      {"gshard_random",
       {.second_expert_policy = {.train = SecondExpert::kRandom, .threshold = 0.6},
        .capacity = with(CapacityOrder::kPosition, false, 0.25)}},
      {"by_prob", {.capacity = with(CapacityOrder::kProb, false)}},
      {"by_chance", {.capacity = with(CapacityOrder::kRandom, true)}},
  };
}

}  // namespace small
