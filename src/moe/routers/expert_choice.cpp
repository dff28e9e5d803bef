// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
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

at::Tensor int_tensor(const std::vector<int32_t>& values) {  // [n] int32
  return at::tensor(values, at::kInt);
}

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
                               options_.on_nonfinite, shape_.layer);
    trace.logits_UE = scores.logits_UE;
    trace.probs_UE = scores.probs_UE;
    if (num_units == 0) return {units, num_experts, empty_plan(trace.probs_UE)};

    const double exact = static_cast<double>(num_units) * options_.factor.at(context.step) / num_experts;
    const auto capacity = std::min(num_units, static_cast<int64_t>(std::ceil(exact)));
    // By the logarithm of the score, which does not underflow. The selection never takes NaN.
    auto by_UE = scores.log_UE.detach();
    if (scores.masked_UE.defined()) by_UE = by_UE.masked_fill(scores.masked_UE, NAN);
    const auto chosen_EC = trace.decisions.decide([&] { return ops::select_top_k(by_UE.t(), capacity); });
    const auto chosen = chosen_EC.const_data_ptr<int32_t>();
    std::vector<std::vector<int32_t>> experts_of_unit(static_cast<size_t>(num_units));
    for (int64_t e = 0; e < num_experts; ++e) {
      for (int64_t c = 0; c < capacity; ++c) {
        const int32_t unit = chosen[e * capacity + c];
        if (unit >= 0) experts_of_unit[static_cast<size_t>(unit)].push_back(static_cast<int32_t>(e));
      }
    }
    std::vector<int32_t> unit, expert, choice;
    for (size_t u = 0; u < experts_of_unit.size(); ++u) {
      for (size_t j = 0; j < experts_of_unit[u].size(); ++j) {
        unit.push_back(static_cast<int32_t>(u));
        expert.push_back(experts_of_unit[u][j]);
        choice.push_back(static_cast<int32_t>(j));
      }
    }
    const auto unit_N = int_tensor(unit), expert_N = int_tensor(expert);
    const auto weight_N =
        trace.probs_UE.reshape({-1}).index_select(0, unit_N.to(at::kLong).mul(num_experts).add(expert_N));
    return {units, num_experts,
            make_sparse_plan(num_units, num_experts, unit_N, expert_N, int_tensor(choice), weight_N, {})};
  }

 private:
  SparsePlan empty_plan(const at::Tensor& probs_UE) const {
    return make_sparse_plan(0, shape_.num_experts, int_tensor({}), int_tensor({}), int_tensor({}),
                            probs_UE.reshape({-1}), {});
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
  entry.caps = [](const config::AnyOptions&) {
    return Caps{.causal = false,
                .batch_independent = false,
                .whole_group = true,
                .records = {"logits", "probs", "pairs"}};
  };
  entry.make = [](const config::AnyOptions& options, const RouterShape& shape) {
    return make_expert_choice_router(options.as<ExpertChoiceOptions>(), shape);
  };
  return entry;
}

}  // namespace conclave::moe
