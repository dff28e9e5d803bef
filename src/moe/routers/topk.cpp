// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/routers/topk.h"

#include <cmath>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "conclave/core/error.h"
#include "conclave/ops/choice.h"
#include "conclave/ops/functions.h"

namespace conclave::moe {

namespace {

// The pairs of a choice [U, K].
struct Pairs {
  at::Tensor unit_N = {}, choice_N = {}, expert_N = {};
};
Pairs pairs_of(const at::Tensor& chosen_UK) {
  const int64_t num_units = chosen_UK.size(0), k = chosen_UK.size(1);
  const auto int32 = chosen_UK.options();
  return {.unit_N = at::arange(num_units, int32).repeat_interleave(k),
          .choice_N = at::arange(k, int32).repeat({num_units}),
          .expert_N = chosen_UK.reshape({-1})};
}

class TopKRouter : public Router {
 public:
  TopKRouter(const TopKOptions& options, const RouterShape& shape) : options_(options), shape_(shape) {
    const auto refusal = options.refusal(shape.num_experts);
    CONCLAVE_CHECK(refusal.empty(), refusal);
    const bool learned = options.noise.type == NoiseType::kLearnedGaussian;
    const auto add = [&](const char* name) {
      nn::ParamTag tag{.role = nn::ParamRole::kRouter};
      if (learned) tag.init_uniform = 0.0;  // an equal start, as Shazeer et al. have it
      return register_tagged(name, at::empty({shape.num_experts, shape.width}, shape.dtype), std::move(tag));
    };
    weight_ = add("weight");
    if (learned) noise_weight_ = add("noise_weight");
    bias_ = register_buffer("selection_bias", at::zeros({shape.num_experts}, at::kFloat));
  }

  RoutingPlan route(const at::Tensor& x_UD, const UnitMap& units, const ForwardContext& context,
                    RouterTrace& trace) override {
    const auto x =
        jittered(x_UD.to(shape_.dtype), options_.jitter_eps.at(context.step), units, context, shape_.layer);
    const auto logits_UE = noisy_logits(x, units, context, trace);
    trace.num_choices = options_.top_k;
    auto choice = in_one_pass(logits_UE, context, trace);
    if (!choice) choice = in_stages(logits_UE, units, context, trace);
    const auto& chosen_UK = choice->chosen_UK;
    auto weight_UK = choice->weight_UK;
    const auto pairs = pairs_of(chosen_UK);
    const auto kept_N =
        trace.decisions.decide([&] { return kept(pairs, weight_UK.reshape({-1}), units, context); });
    if (kept_N.defined() && options_.capacity.renormalize_after_drop)
      weight_UK = weights(choice->scores, chosen_UK, kept_N.eq(0).view(chosen_UK.sizes()));
    const auto weight_N = weight_UK.masked_fill(chosen_UK.lt(0), 0.0).reshape({-1});
    auto plan = make_sparse_plan(x_UD.size(0), shape_.num_experts, pairs.unit_N, pairs.expert_N,
                                 pairs.choice_N, weight_N, kept_N, choice->requested_E);
    plan.capacity = capacity(units, context);
    return {units, shape_.num_experts, std::move(plan)};
  }

  at::Tensor selection_bias() override { return bias_; }

 private:
  struct Choice {
    at::Tensor chosen_UK = {}, weight_UK = {};
    at::Tensor requested_E = {};  // undefined: not counted
    Scores scores = {};           // in stages
  };

  // By one kernel: whatever looks at nothing but a unit's own scores.
  std::optional<Choice> in_one_pass(const at::Tensor& logits_UE, const ForwardContext& context,
                                    RouterTrace& trace) const {
    if (options_.on_nonfinite != NonFinitePolicy::kError || chance_decides(context.phase) ||
        options_.capacity.renormalize_after_drop)
      return std::nullopt;
    ops::TokenChoice how{.top_k = options_.top_k,
                         .sigmoid = options_.score_function == ScoreFunction::kSigmoid,
                         .normalise = options_.normalises(),
                         .scale = options_.routed_scaling_factor};
    if (const auto& limit = options_.group_limited) {
      how.num_groups = limit->num_groups;
      how.topk_groups = limit->topk_groups;
      how.group_top2 = limit->group_score == GroupScore::kTop2Sum;
    }
    if (!ops::can_choose_experts(logits_UE, how)) return std::nullopt;
    ops::ChosenExperts all;
    const auto choose = [&](const at::Tensor& given_UK) {
      all = ops::choose_experts(logits_UE, bias_, how, given_UK);
      return all.chosen_UK;
    };
    const auto chosen_UK = trace.decisions.decide([&] { return choose({}); });
    if (!all.chosen_UK.defined()) choose(chosen_UK);  // decided in a pass before
    refuse_non_finite(all.non_finite, logits_UE.numel(), shape_.layer, trace);
    trace.logits_UE = logits_UE;
    trace.probs_UE = all.scores_UE;
    return Choice{.chosen_UK = chosen_UK, .weight_UK = all.weight_UK, .requested_E = all.counts_E};
  }

  Choice in_stages(const at::Tensor& logits_UE, const UnitMap& units, const ForwardContext& context,
                   RouterTrace& trace) const {
    Choice choice{.scores =
                      scored(logits_UE, options_.score_function, options_.on_nonfinite, shape_.layer, trace)};
    const auto& scores = choice.scores;
    trace.logits_UE = scores.logits_UE;
    trace.probs_UE = scores.probs_UE;
    choice.chosen_UK = trace.decisions.decide([&] { return select(scores); });
    choice.weight_UK = weights(scores, choice.chosen_UK, choice.chosen_UK.lt(0));
    if (chance_decides(context.phase)) {
      choice.chosen_UK = trace.decisions.decide([&] {
        return with_second_by_chance(options_.second_expert_policy, choice.chosen_UK,
                                     normalised_scores(scores, choice.chosen_UK, choice.chosen_UK.lt(0)),
                                     units, context, shape_.layer);
      });
    }
    return choice;
  }

  bool chance_decides(Phase phase) const {
    return options_.top_k == 2 && options_.second_expert_policy.by_chance(phase);
  }

  // z, or H = z + sigma N(0, 1) in training. What the load loss reads goes into the trace. Where something
  // beside the logits selects, a group limit or a bias, the threshold is not what an expert has to beat: it
  // is left out, or NaN.
  at::Tensor noisy_logits(const at::Tensor& x, const UnitMap& units, const ForwardContext& context,
                          RouterTrace& trace) const {
    const auto clean_UE = at::linear(x, weight_);
    if (context.phase != Phase::kTrain) return clean_UE;
    const auto sigma_UE = noise_sigma(options_.noise, x, noise_weight_, shape_.num_experts, context.step);
    if (!sigma_UE.defined()) return clean_UE;
    const auto noisy_UE = clean_UE.add(
        sigma_UE.mul(normal_draws(units, shape_.num_experts, context.random, shape_.layer, x.options())));
    trace.tensors["clean_logits"] = clean_UE;
    trace.tensors["noise_sigma"] = sigma_UE;
    if (!options_.group_limited) {
      trace.tensors["threshold"] =
          threshold_of_others(noisy_UE, options_.top_k).masked_fill(bias_.ne(0).any(), NAN);
    }
    return noisy_UE;
  }

  // Scores are monotone in the logits, so logits decide (a score may underflow, a logit does not) until there
  // is a bias, which is added to the score. A masked logit becomes NaN, which is never chosen. Whether there
  // is one is asked where the bias is: the host does not wait.
  at::Tensor select(const Scores& scores) const {
    const auto biased = bias_.ne(0).any();
    const auto with_bias_UE = scores.probs_UE.detach().add(bias_);
    auto by_UE = at::where(biased, with_bias_UE, scores.logits_UE.detach());
    auto never_UE = scores.masked_UE;
    if (options_.group_limited) {
      auto group_by_UE = at::where(biased, with_bias_UE, scores.relative_UE.detach());
      if (never_UE.defined()) group_by_UE = group_by_UE.masked_fill(never_UE, -INFINITY);
      const auto outside_UE = outside_kept_groups(*options_.group_limited, group_by_UE, biased.logical_not());
      never_UE = never_UE.defined() ? never_UE.logical_or(outside_UE) : outside_UE;
    }
    if (never_UE.defined()) by_UE = by_UE.masked_fill(never_UE, NAN);
    return ops::select_top_k(by_UE, options_.top_k);
  }

  // Weights come from the scores themselves, never from what selected. [U, K]
  at::Tensor weights(const Scores& scores, const at::Tensor& chosen_UK, const at::Tensor& left_out_UK) const {
    const auto weight_UK = options_.normalises()
                               ? normalised_scores(scores, chosen_UK, left_out_UK)
                               : scores.probs_UE.gather(1, chosen_UK.clamp_min(0).to(at::kLong));
    return options_.routed_scaling_factor == 1.0 ? weight_UK : weight_UK.mul(options_.routed_scaling_factor);
  }

  // Rows that an expert may have; 0: dropless, or no units.
  int64_t capacity(const UnitMap& units, const ForwardContext& context) const {
    if (context.phase == Phase::kGenerate)
      return 0;  // sees a few tokens at a time, of which no share can be taken
    const auto& limits = options_.capacity;
    const auto& factor = context.phase == Phase::kTrain ? limits.factor : limits.eval_factor;
    if (!factor) return 0;
    return expert_capacity(limits, factor->at(context.step), units.num_units, shape_.num_experts,
                           options_.top_k);
  }

  // uint8 [N]; undefined: dropless.
  at::Tensor kept(const Pairs& pairs, const at::Tensor& weight_N, const UnitMap& units,
                  const ForwardContext& context) const {
    const int64_t limit = capacity(units, context);
    if (limit == 0) return {};
    auto order = options_.capacity.order;
    if (order == CapacityOrder::kRandom && context.phase != Phase::kTrain) order = CapacityOrder::kPosition;
    return keep_within_capacity(order, limit, shape_.num_experts, pairs.unit_N, pairs.expert_N,
                                pairs.choice_N, weight_N, units.global_id_U, context.random, shape_.layer);
  }

  TopKOptions options_;
  RouterShape shape_;
  at::Tensor weight_, noise_weight_;  // [E, D]
  at::Tensor bias_;                   // [E] fp32
};

}  // namespace

std::shared_ptr<Router> make_topk_router(const TopKOptions& options, const RouterShape& shape) {
  return std::make_shared<TopKRouter>(options, shape);
}

}  // namespace conclave::moe
