// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/searchsorted.h>
#include <fmt/format.h>

#include "conclave/moe/routers/group_gates.h"
#include "conclave/ops/functions.h"

namespace conclave::moe {

void ExpertChoiceOptions::fields(config::Fields& f) {
  f("factor", factor, "Average number of experts per token: each expert takes ceil(T * factor / E) tokens.")
      .positive();
  f("on_nonfinite", on_nonfinite, non_finite_names(),
    "A NaN or infinite logit stops the run, or is never selected.");
}

namespace {

class ExpertChoiceRouter : public Router {
 public:
  ExpertChoiceRouter(const ExpertChoiceOptions& options, const RouterShape& shape)
      : options_(options), shape_(shape) {
    weight_ = register_tagged("weight", at::empty({shape.num_experts, shape.width}, shape.dtype),
                              {.role = nn::ParamRole::kRouter});
  }

  RoutingPlan route(const at::Tensor& x_UD, const UnitMap& units, const ForwardContext& context,
                    RouterTrace& trace) override {
    const int64_t num_units = x_UD.size(0), num_experts = shape_.num_experts;
    const auto scores = scored(at::linear(x_UD.to(shape_.dtype), weight_), ScoreFunction::kSoftmax,
                               options_.on_nonfinite, shape_.layer, trace);
    trace.logits_UE = scores.logits_UE;
    trace.probs_UE = scores.probs_UE;
    if (num_units == 0) return {units, num_experts, empty_plan(trace.probs_UE)};

    const double exact = static_cast<double>(num_units) * options_.factor.at(context.step) / num_experts;
    const auto capacity = std::min(num_units, static_cast<int64_t>(std::ceil(exact)));
    // By the logarithm of the score, which does not underflow. The selection never takes NaN.
    auto by_UE = scores.log_UE.detach();
    if (scores.masked_UE.defined()) by_UE = by_UE.masked_fill(scores.masked_UE, NAN);
    const auto chosen_EC = trace.decisions.decide([&] { return ops::select_top_k(by_UE.t(), capacity); });
    return {units, num_experts, plan_of(chosen_EC, trace.probs_UE)};
  }

 private:
  // Pairs sorted by unit, and inside a unit by expert. Where an expert found no score that can be compared
  // its pair is none, and stands behind all others.
  SparsePlan plan_of(const at::Tensor& chosen_EC, const at::Tensor& probs_UE) const {
    const int64_t num_units = probs_UE.size(0), num_experts = shape_.num_experts;
    const auto int32 = chosen_EC.options();
    const auto [key_N, order_N] = chosen_EC.masked_fill(chosen_EC.lt(0), num_units)
                                      .reshape({-1})
                                      .sort(/*stable=*/true, 0, /*descending=*/false);
    const auto none_N = key_N.eq(num_units);
    const auto unit_N = key_N.clamp_max(num_units - 1);
    const auto expert_N =
        at::arange(num_experts, int32).repeat_interleave(chosen_EC.size(1)).index_select(0, order_N);
    const auto first_N = at::searchsorted(key_N, key_N, /*out_int32=*/true);
    const auto weight_N = probs_UE.reshape({-1})
                              .index_select(0, unit_N.to(at::kLong).mul(num_experts).add(expert_N))
                              .masked_fill(none_N, 0.0);
    return make_sparse_plan(num_units, num_experts, unit_N, expert_N.masked_fill(none_N, -1),
                            at::arange(key_N.numel(), int32).sub(first_N), weight_N, {});
  }

  SparsePlan empty_plan(const at::Tensor& probs_UE) const {
    const auto none = at::empty({0}, probs_UE.options().dtype(at::kInt));
    return make_sparse_plan(0, shape_.num_experts, none, none, none, probs_UE.reshape({-1}), {});
  }

  ExpertChoiceOptions options_;
  RouterShape shape_;
  at::Tensor weight_;  // [E, D]
};

}  // namespace

std::shared_ptr<Router> make_expert_choice_router(const ExpertChoiceOptions& options,
                                                  const RouterShape& shape) {
  return std::make_shared<ExpertChoiceRouter>(options, shape);
}

RouterEntry expert_choice_entry() {
  RouterEntry entry;
  entry.name = "expert_choice";
  entry.doc = "Each expert takes its best tokens of the micro-batch.";
  entry.defaults = [] { return config::AnyOptions(ExpertChoiceOptions{}); };
  entry.caps = [](const config::AnyOptions& options) {
    return Caps{.causal = false,
                .batch_independent = false,
                .whole_group = true,
                .same_launches = options.as<ExpertChoiceOptions>().factor.is_constant(),
                .records = {"logits", "probs", "pairs"}};
  };
  entry.make = [](const config::AnyOptions& options, const RouterShape& shape) {
    return make_expert_choice_router(options.as<ExpertChoiceOptions>(), shape);
  };
  return entry;
}

}  // namespace conclave::moe
