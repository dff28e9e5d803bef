// SPDX-License-Identifier: Apache-2.0
// Keys, promises and table line of the top-k router.
#include <fmt/format.h>

#include "conclave/moe/routers/topk.h"

namespace conclave::moe {

void TopKOptions::fields(config::Fields& f) {
  f("top_k", top_k, "Experts per token.").min(1).alias("num_experts_per_tok").alias("moe_router_topk");
  f("score_function", score_function,
    {{"softmax", ScoreFunction::kSoftmax}, {"sigmoid", ScoreFunction::kSigmoid}}, "Turns logits into scores.")
      .alias("scoring_func")
      .alias("moe_router_score_function");
  f("score_before_topk", score_before_topk,
    "Score all experts, then select (true), or select logits and score the selected ones (false).");
  f("norm_topk_prob", norm_topk_prob, "Make the weights of a token sum to one.").alias("normalize_topk_prob");
  f("routed_scaling_factor", routed_scaling_factor, "Multiplies the weights after normalisation.")
      .positive()
      .alias("moe_router_topk_scaling_factor")
      .alias("scaling_factor");
  f("jitter_eps", jitter_eps, "Training: the router's input times U(1 - eps, 1 + eps), elementwise.")
      .min(0)
      .less_than(1);
  f("noise", noise, "Training: noise on the logits, which selects and weighs.");
  f("group_limited", group_limited, "Choose inside the best groups of experts only; null: among all.");
  f("second_expert_policy", second_expert_policy, "Whether the second of two choices always counts.")
      .only_if([this] { return top_k == 2; }, "top_k is not 2");
  f("capacity", capacity, "Limit on the units of one expert.");
  f("dtype", dtype, {{"fp32", RouterPrecision::kFp32}},
    "Precision of the router, whatever the model's (an fp64 model has an fp64 router).");
  f("on_nonfinite", on_nonfinite, non_finite_names(),
    "A NaN or infinite logit stops the run, or counts as never selected.");
  f.check([this](config::Check& check) {
    if (top_k == 1 && normalises()) {
      check.error("norm_topk_prob",
                  "with top_k: 1 every normalised weight is 1, so the router gets no gradient from the task",
                  "set norm_topk_prob: false (and score_before_topk: true), or top_k: 2");
    }
    if (capacity.renormalize_after_drop && !normalises()) {
      check.error("capacity.renormalize_after_drop", "the weights are not normalised in the first place",
                  "set norm_topk_prob: true, or remove it");
    }
  });
}

std::string TopKOptions::refusal(int64_t num_experts) const {
  if (top_k < 1 || top_k > num_experts) {
    return fmt::format("top_k ({}) must be between 1 and num_experts ({})", top_k, num_experts);
  }
  if (!group_limited) return "";
  const auto& groups = *group_limited;
  if (num_experts % groups.num_groups != 0) {
    return fmt::format("group_limited: {} experts do not form {} equal groups", num_experts,
                       groups.num_groups);
  }
  const int64_t size = num_experts / groups.num_groups;
  if (groups.group_score == GroupScore::kTop2Sum && size < 2) {
    return "group_limited: top2_sum needs groups of two experts or more; use group_score: max";
  }
  if (groups.topk_groups > groups.num_groups || top_k > groups.topk_groups * size) {
    return fmt::format("group_limited: {} groups of {} experts cannot give {} experts", groups.topk_groups,
                       size, top_k);
  }
  return "";
}

namespace {

// Draws are made on the host, schedules followed there.
bool launches_the_same(const TopKOptions& o) {
  return o.jitter_eps.is_constant() && o.jitter_eps.at(0) == 0.0 && o.noise.type == NoiseType::kNone &&
         !(o.top_k == 2 && o.second_expert_policy.by_chance(Phase::kTrain)) &&
         (!o.capacity.factor ||
          (o.capacity.factor->is_constant() && o.capacity.order != CapacityOrder::kRandom));
}

Caps topk_caps(const TopKOptions& options) {
  const bool limited = options.capacity.factor || options.capacity.eval_factor;
  // A limit makes drops depend on other sequences. In order of position the field counts it as causal,
  // although a second choice queues behind the first choices of later tokens; the other orders look at the
  // whole batch.
  Caps caps{.causal = !limited || options.capacity.order == CapacityOrder::kPosition,
            .batch_independent = !limited,
            .max_choices = options.top_k,
            .selection_bias = true,
            .drops_in_training = options.capacity.factor.has_value(),
            .drops_in_evaluation = options.capacity.eval_factor.has_value(),
            .same_launches = launches_the_same(options),
            .records = {"logits", "probs", "pairs", "ranks"}};
  if (options.noise.type != NoiseType::kNone && !options.group_limited) caps.records.push_back("threshold");
  return caps;
}

}  // namespace

RouterEntry topk_entry() {
  RouterEntry entry;
  entry.name = "topk";
  entry.doc = "Each token takes its k best experts.";
  entry.defaults = [] { return config::AnyOptions(TopKOptions{}); };
  entry.caps = [](const config::AnyOptions& options) { return topk_caps(options.as<TopKOptions>()); };
  entry.refusal = [](const config::AnyOptions& options, int64_t num_experts) {
    return options.as<TopKOptions>().refusal(num_experts);
  };
  entry.make = [](const config::AnyOptions& options, const RouterShape& shape) {
    return make_topk_router(options.as<TopKOptions>(), shape);
  };
  return entry;
}

}  // namespace conclave::moe
