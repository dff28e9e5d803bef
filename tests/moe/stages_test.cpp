// SPDX-License-Identifier: Apache-2.0
// Properties of single stages that can be calculated by hand or counted.
#include <cmath>
#include <set>

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>

#include "conclave/core/error.h"
#include "conclave/moe/losses/losses.h"
#include "small_layer.h"

namespace {

using namespace small;

// A router that has the given logits for the input 1.
std::shared_ptr<Router> router_with_logits(const TopKOptions& options, const at::Tensor& logits_E) {
  const RouterShape shape{.width = 1, .num_experts = logits_E.numel(), .layer = 0, .dtype = at::kDouble};
  auto router = make_topk_router(options, shape);
  const c10::NoGradGuard no_grad;
  router->named_parameters()["weight"].copy_(logits_E.unsqueeze(1));
  return router;
}

SparsePlan route(Router& router, int64_t units, Phase phase = Phase::kTrain, RouterTrace* trace = nullptr) {
  auto context = ForwardContext::plain(units, phase);
  RouterTrace own;
  return std::get<SparsePlan>(
      router.route(at::ones({units, 1}, at::kDouble), context.tokens, context, trace ? *trace : own).body);
}

TEST(Noise, thresholds_and_probabilities_match_the_hand_calculation) {
  const auto row = [](double a, double b, double c) {
    return at::tensor({a, b, c}, at::kDouble).view({1, 3});
  };
  const auto clean = row(0.5, 0.0, -0.5), noisy = row(0.4, 0.6, -0.3);
  const auto threshold = threshold_of_others(noisy, 1);
  EXPECT_TRUE(threshold.equal(row(0.6, 0.4, 0.6)));
  const auto probability = selection_probability(clean, threshold, at::ones({1, 3}, at::kDouble).mul(0.7));
  EXPECT_LE(probability.sub(row(0.443202, 0.283855, 0.058042)).abs().max().item<double>(), 1e-6);
  // All experts are taken: nothing to beat. No noise: what is above the threshold is certain.
  EXPECT_TRUE(threshold_of_others(noisy, 3).isinf().all().item<bool>());
  const auto sure =
      selection_probability(clean, threshold_of_others(noisy, 3), at::ones({1, 3}, at::kDouble));
  EXPECT_TRUE(sure.equal(row(1, 1, 1)));
  EXPECT_TRUE(selection_probability(clean, threshold, row(0, 0, 0)).equal(row(0, 0, 0)));
  EXPECT_TRUE(selection_probability(clean.add(0.3), threshold, row(0, 0, 0)).equal(row(1, 0, 0)));
}

TEST(Noise, the_mean_probability_is_the_frequency_of_selection_and_sums_to_k) {
  const auto logits = at::tensor({0.4, 0.0, -0.3, 0.9, 0.1}, at::kDouble);
  auto router = router_with_logits({.noise = {.type = NoiseType::kGaussian, .std = 0.8}}, logits);
  constexpr int64_t kDraws = 6000;
  RouterTrace trace;
  const auto plan = route(*router, kDraws, Phase::kTrain, &trace);
  const auto probability =
      selection_probability(trace.tensors.at("clean_logits"), trace.tensors.at("threshold"),
                            trace.tensors.at("noise_sigma"))
          .mean(0);
  const auto frequency = plan.requested_E.to(at::kDouble).div(kDraws);
  EXPECT_LE(probability.sub(frequency).abs().max().item<double>(), 0.02);
  EXPECT_NEAR(probability.sum().item<double>(), 2.0, 0.02);
  EXPECT_EQ(route(*router, kDraws, Phase::kEval).requested_E[3].item<int64_t>(), kDraws);
}

TEST(SecondExpert, counts_with_probability_twice_its_weight_in_training_and_always_in_evaluation) {
  const auto logits = at::tensor({std::log(3.0), 0.0, -20.0}, at::kDouble);  // g = 3/4, 1/4
  auto router = router_with_logits({.second_expert_policy = {.train = SecondExpert::kRandom}}, logits);
  constexpr int64_t kDraws = 4000;
  const auto plan = route(*router, kDraws);
  EXPECT_EQ(plan.requested_E[0].item<int64_t>(), kDraws);
  EXPECT_NEAR(static_cast<double>(plan.requested_E[1].item<int64_t>()) / kDraws, 0.5, 0.03);
  EXPECT_NEAR(plan.weight_N[0].item<double>(), 0.75, 1e-12);  // a first choice keeps its weight
  EXPECT_EQ(route(*router, kDraws, Phase::kEval).requested_E[1].item<int64_t>(), kDraws);
}

TEST(GroupLimit, experts_of_other_groups_are_out_also_when_biased_scores_are_negative) {
  const auto score = at::tensor({.1, .2, .15, .12, .9, .8, .05, .02}, at::kDouble);
  auto router = router_with_logits({.top_k = 4,
                                    .score_function = ScoreFunction::kSigmoid,
                                    .group_limited = GroupLimitOptions{.num_groups = 2, .topk_groups = 1}},
                                   score.logit());
  router->selection_bias().fill_(-0.5);
  EXPECT_TRUE(route(*router, 1).requested_E.equal(at::tensor({0, 0, 0, 0, 1, 1, 1, 1}, at::kLong)));
}

TEST(GroupLimit, a_token_stays_inside_its_groups_and_with_all_groups_kept_nothing_changes) {
  const auto x = normal({kUnits, kModel}, 65);
  auto plain = layer_with(make_topk_router({.top_k = 3}, shape()));
  for (const auto score : {GroupScore::kMax, GroupScore::kTop2Sum}) {
    const auto limited = [&](int64_t kept) {
      const GroupLimitOptions groups{.num_groups = 3, .topk_groups = kept, .group_score = score};
      return layer_with(make_topk_router({.top_k = 3, .group_limited = groups}, shape()));
    };
    EXPECT_TRUE(limited(3)->forward(x).equal(plain->forward(x)));
    auto context = three_documents();
    limited(2)->run(x, context);
    const auto& plan = std::get<SparsePlan>(context.traces.at(0).plan.body);
    const auto group_UK = plan.expert_N.div(2, "floor").view({kUnits, 3});
    for (int64_t u = 0; u < kUnits; ++u) {
      std::set<int32_t> groups;
      for (int64_t j = 0; j < 3; ++j) groups.insert(group_UK[u][j].item<int32_t>());
      EXPECT_LE(groups.size(), 2u);
    }
  }
}

TEST(TopK, options_that_do_not_suit_the_bank_are_refused_with_the_numbers) {
  const auto refused = [](const TopKOptions& options, const std::string& words) {
    try {
      make_topk_router(options, shape());
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  refused({.top_k = 7}, "top_k (7)");
  refused({.group_limited = GroupLimitOptions{.num_groups = 4}}, "4 equal groups");
  refused({.group_limited = GroupLimitOptions{.num_groups = 6, .topk_groups = 3}}, "two experts or more");
  refused({.top_k = 3, .group_limited = GroupLimitOptions{.num_groups = 3, .topk_groups = 1}},
          "cannot give 3 experts");
}

TEST(Capacity, is_raised_to_a_multiple_but_never_beyond_the_units) {
  EXPECT_EQ(expert_capacity({.multiple_of = 4}, 1.0, 21, 6, 2), 8);  // 7 -> 8
  EXPECT_EQ(expert_capacity({.multiple_of = 16}, 1.0, 13, 6, 2), 13);
}

TEST(Capacity, by_chance_every_contender_has_the_same_chance_and_evaluation_goes_by_position) {
  const auto logits = at::tensor({1.0, 0.0, -1.0}, at::kDouble);
  auto router = router_with_logits({.top_k = 1,
                                    .norm_topk_prob = false,
                                    .capacity = {.factor = config::Value(0.9),
                                                 .eval_factor = config::Value(0.9),
                                                 .order = CapacityOrder::kRandom}},
                                   logits);
  constexpr int64_t kTokens = 1000;  // all want expert 0, which has 300 places
  const auto kept = [&](Phase phase, int64_t step) {
    auto context = ForwardContext::plain(kTokens, phase);
    context.random.step = static_cast<uint64_t>(step);
    RouterTrace trace;
    auto plan = router->route(at::ones({kTokens, 1}, at::kDouble), context.tokens, context, trace);
    return std::get<SparsePlan>(plan.body).row_of_pair_N.ge(0).to(at::kLong);
  };
  auto sum = kept(Phase::kTrain, 0);
  EXPECT_EQ(sum.sum().item<int64_t>(), 300);
  for (int64_t step = 1; step < 40; ++step) sum = sum.add(kept(Phase::kTrain, step));
  // Mean 12 of 40 with standard deviation 2.9: chi-square over 1000 tokens, mean 1000, deviation about 45.
  const double chi = sum.sub(12).square().to(at::kDouble).sum().div(40 * 0.3 * 0.7).item<double>();
  EXPECT_GT(chi, 800);
  EXPECT_LT(chi, 1200);
  EXPECT_EQ(kept(Phase::kEval, 1).narrow(0, 0, 300).sum().item<int64_t>(), 300);
}

}  // namespace
