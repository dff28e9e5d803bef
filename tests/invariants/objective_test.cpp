// SPDX-License-Identifier: Apache-2.0
// Invariants 1 to 3 (docs/invariants.md): the objective is a function of the data and the configuration, sums
// over valid things may be empty, and no epsilon decides.
#include <cmath>

#include <ATen/ops/full.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "conclave/moe/losses/losses.h"
#include "conclave/moe/routers/topk.h"
#include "conclave/moe/stats.h"
#include "conclave/optim/optimizer.h"
#include "conclave/train/evaluate.h"
#include "tiny_model.h"

namespace conclave::invariants {
namespace {

constexpr int64_t kGlobalBatch = 6;

// How the micro-batches of one step are put together: ours, and the usual mistake.
double sum_over_all_targets(const std::vector<double>& nats, const std::vector<int64_t>& targets) {
  double sum = 0;
  int64_t count = 0;
  for (size_t i = 0; i < nats.size(); ++i) {
    sum += nats[i];
    count += targets[i];
  }
  return sum / static_cast<double>(std::max<int64_t>(count, 1));
}
double mean_of_means(const std::vector<double>& nats, const std::vector<int64_t>& targets) {
  double sum = 0;
  for (size_t i = 0; i < nats.size(); ++i)
    sum += targets[i] ? nats[i] / static_cast<double>(targets[i]) / static_cast<double>(nats.size()) : 0;
  return sum;
}

template <class Combine>
bool is_independent_of_the_micro_batch(const TinyModel& tiny, Combine combine) {
  std::vector<double> losses;
  for (const int64_t size : {kGlobalBatch, int64_t{3}, int64_t{2}, int64_t{1}}) {
    auto stream = tiny.stream(size);
    std::vector<double> nats;
    std::vector<int64_t> targets;
    for (int64_t i = 0; i < kGlobalBatch / size; ++i) {
      const auto batch = stream.next();
      nats.push_back(tiny.loss_sum(batch));
      targets.push_back(batch.num_targets);
    }
    losses.push_back(combine(nats, targets));
  }
  for (const double loss : losses)
    if (std::abs(loss - losses[0]) > 1e-9 * std::abs(losses[0])) return false;
  return true;
}

TEST(Invariant1, the_loss_does_not_depend_on_micro_batches_and_a_mean_of_means_is_caught) {
  const TinyModel tiny;
  EXPECT_TRUE(is_independent_of_the_micro_batch(tiny, sum_over_all_targets));
  EXPECT_FALSE(is_independent_of_the_micro_batch(tiny, mean_of_means));
}

TEST(Invariant1, a_short_document_costs_the_same_in_any_packing_and_a_missing_document_mask_is_caught) {
  // Documents in rows of their own, and the same rows with a foreign document before them.
  const TinyModel tiny;
  data::Batch alone;
  auto stream = tiny.stream(1);
  do alone = stream.next();
  while (alone.num_tokens > alone.seq_length / 2);
  data::Batch packed = alone;
  const auto n = static_cast<size_t>(alone.num_tokens), length = static_cast<size_t>(alone.seq_length);
  for (size_t i = 0; i < length; ++i) {
    const bool moved = i >= length - n;
    const size_t from = i - (length - n);
    packed.token[i] = moved ? alone.token[from] : static_cast<int32_t>(97 + i);
    packed.target[i] = moved ? alone.target[from] : -1;
    packed.document[i] = moved ? 1 : 0;
    packed.position[i] = moved ? alone.position[from] : static_cast<int32_t>(i);
    packed.domain[i] = 0;
  }
  packed.num_tokens = alone.seq_length;
  const double want = tiny.loss_sum(alone);
  EXPECT_NEAR(tiny.loss_sum(packed), want, 1e-9 * want);
  std::fill(packed.document.begin(), packed.document.end(), 0);
  EXPECT_GT(std::abs(tiny.loss_sum(packed) - want), 1e-6 * want);
}

data::Batch without_targets(data::Batch batch) {
  std::fill(batch.target.begin(), batch.target.end(), -1);
  batch.num_targets = batch.num_target_bytes = 0;
  return batch;
}

bool all_gradients_are_zero(const TinyModel& tiny) {
  for (const auto& p : tiny.parameters)
    if (p.tensor.grad().defined() && !p.tensor.grad().eq(0).all().item<bool>()) return false;
  return true;
}

TEST(Invariant2, a_micro_batch_without_targets_adds_nothing_and_a_mean_over_it_is_caught) {
  const TinyModel tiny;
  const auto empty = without_targets(tiny.stream(3).next());
  moe::ForwardContext context;
  const auto loss = tiny.model->loss(empty, context);
  EXPECT_EQ(loss.sum.item<double>(), 0.0);
  loss.sum.div(static_cast<double>(std::max<int64_t>(empty.num_targets, 1))).backward();
  EXPECT_TRUE(all_gradients_are_zero(tiny));
  moe::ForwardContext again;
  tiny.model->loss(empty, again).sum.div(static_cast<double>(empty.num_targets)).backward();
  EXPECT_FALSE(all_gradients_are_zero(tiny)) << "0/0 is not noticed";
}

TEST(Invariant2, every_auxiliary_loss_of_a_micro_batch_without_tokens_is_zero) {
  const TinyModel tiny;
  moe::RouterTrace trace;
  trace.logits_UE = at::zeros({0, 5}, at::kDouble).requires_grad_(true);
  trace.probs_UE = trace.logits_UE.softmax(-1);
  trace.tensors["selector_UKE"] = at::zeros({0, 2, 5}, at::kDouble);
  for (const char* name : {"clean_logits", "threshold", "noise_sigma"}) trace.tensors[name] = trace.logits_UE;
  trace.plan.num_experts = 5;
  const auto none = at::zeros({0}, at::kInt);
  trace.plan.body = moe::make_sparse_plan(0, 5, none, none, none, at::zeros({0}, at::kDouble), {});
  for (const auto& entry : tiny.registry.aux_losses.entries()) {
    const auto share = entry.make(entry.defaults())->share(trace, {.num_tokens = 0, .num_sequences = 0});
    EXPECT_EQ(share.item<double>(), 0.0) << entry.name;
  }
}

TEST(Invariant2, statistics_of_nothing_are_defined) {
  for (const std::vector<int64_t>& counts : {std::vector<int64_t>{}, {0, 0, 0}, {7}}) {
    EXPECT_TRUE(std::isfinite(moe::load_max_over_mean(counts)));
    EXPECT_TRUE(std::isfinite(moe::load_entropy(counts)));
    EXPECT_TRUE(std::isfinite(moe::dead_share(counts)));
    EXPECT_TRUE(std::isfinite(moe::drop_rate({.requested = counts, .kept = counts})));
  }
}

TEST(Invariant2, nothing_held_out_and_no_warm_up_have_defined_results) {
  TinyModel tiny;
  tiny.dataset.valid.clear();
  const auto result = train::evaluate(*tiny.model, {tiny.dataset, {.micro_batch_size = 3}}, 1, 0);
  EXPECT_EQ(result.targets, 0);
  EXPECT_EQ(result.loss, 0.0);
  EXPECT_EQ(result.bits_per_byte, 0.0);
  optim::LrSchedulerOptions schedule;
  schedule.warmup_fraction = 0.0;
  for (const double progress : {0.0, 0.5, 1.0}) EXPECT_TRUE(std::isfinite(schedule.at(progress, 1e-3)));
  EXPECT_EQ(schedule.at(0.0, 1e-3), 1e-3);
}

TEST(Invariant3, equal_scores_get_equal_weights_however_small_and_an_epsilon_is_caught) {
  const TinyModel tiny;
  auto options = tiny.registry.routers.at("topk").defaults();
  auto& topk = options.as<moe::TopKOptions>();
  topk.score_function = moe::ScoreFunction::kSigmoid;
  const auto router = moe::make_topk_router(topk, {.width = 1, .num_experts = 5, .dtype = at::kDouble});
  router->named_parameters()["weight"].set_requires_grad(false).fill_(1.0);
  moe::ForwardContext context = moe::ForwardContext::plain(1);
  moe::RouterTrace trace;
  for (const double logit : {-3.0, -90.0, -400.0}) {
    const auto plan = router->route(at::full({1, 1}, logit, at::kDouble), context.tokens, context, trace);
    const auto& weights = std::get<moe::SparsePlan>(plan.body).weight_N;
    EXPECT_NEAR(weights[0].item<double>(), 0.5, 1e-12) << logit;
    EXPECT_NEAR(weights[1].item<double>(), 0.5, 1e-12) << logit;
  }
  const auto p = at::sigmoid(at::tensor({-90.0, -90.0}, at::kDouble));
  const auto with_epsilon = p.div(p.sum().add(1e-20));
  EXPECT_LT(with_epsilon[0].item<double>(), 0.4) << "the range above is not where an epsilon decides";
}

}  // namespace
}  // namespace conclave::invariants
