// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/losses/losses.h"

#include <ATen/ops/zeros.h>

#include "conclave/core/error.h"

namespace conclave::moe {

void LoadBalancingOptions::fields(config::Fields& f) {
  f("weight", weight, "Coefficient in the objective.").min(0).alias("coeff");
  f("scope", scope, {{"micro_batch", BalanceScope::kMicroBatch}, {"sequence", BalanceScope::kSequence}},
    "Tokens over which the share of requests and the mean score are taken.");
}

namespace {

// E * sum_e f_e P_e per group; f_e = n_e / sum(n), a constant; P_e = mean score, normalised over experts so
// that sigmoid scores are a distribution as well. Switch Transformer (Fedus et al., 2021), eq. 4, with the
// 1/k of the catalogue so that the value is 1 at balance for every k.
class LoadBalancingLoss : public AuxLoss {
 public:
  explicit LoadBalancingLoss(const LoadBalancingOptions& options) : options_(options) {}

  double weight(int64_t step) const override { return options_.weight.at(step); }

  at::Tensor share(const RouterTrace& trace, const StepTotals& totals) const override {
    const auto* plan = std::get_if<SparsePlan>(&trace.plan.body);
    CONCLAVE_CHECK(plan && trace.probs_UE.defined(),
                   "load_balancing needs a router that chooses experts per token");
    const int64_t num_units = trace.probs_UE.size(0);
    if (num_units == 0) return at::zeros({}, trace.probs_UE.options());
    const auto probs_UE = trace.probs_UE.div(trace.probs_UE.sum(-1, true));
    const bool by_sequence = options_.scope == BalanceScope::kSequence;
    const auto group_U =
        by_sequence ? trace.plan.units.sequence_of_unit_U : at::zeros({num_units}, at::kLong);
    const int64_t num_groups = by_sequence ? trace.plan.units.num_sequences : 1;
    const double num_experts = static_cast<double>(trace.plan.num_experts);
    const auto options = probs_UE.options();

    const auto pair_group_N = group_U.index_select(0, plan->unit_N);
    auto counts_GE = at::zeros({num_groups * trace.plan.num_experts}, options);
    counts_GE.index_add_(0, pair_group_N.mul(trace.plan.num_experts).add(plan->expert_N),
                         at::zeros({plan->expert_N.numel()}, options).add(1));
    counts_GE = counts_GE.view({num_groups, trace.plan.num_experts});
    const auto f_GE = counts_GE.div(counts_GE.sum(1, true).clamp_min(1));
    const auto units_G = at::zeros({num_groups}, options)
                             .index_add(0, group_U, at::zeros({num_units}, options).add(1))
                             .clamp_min(1)
                             .unsqueeze(1);
    const auto p_GE =
        at::zeros({num_groups, trace.plan.num_experts}, options).index_add(0, group_U, probs_UE).div(units_G);
    const auto groups_in_step = by_sequence ? totals.num_sequences : totals.num_micro_batches;
    return f_GE.mul(p_GE).sum().mul(num_experts / static_cast<double>(std::max<int64_t>(groups_in_step, 1)));
  }

 private:
  LoadBalancingOptions options_;
};

}  // namespace

AuxLossEntry load_balancing_entry() {
  AuxLossEntry entry;
  entry.name = "load_balancing";
  entry.doc = "Pulls the experts' shares of tokens together: E sum f P.";
  entry.defaults = [] { return config::AnyOptions(LoadBalancingOptions{}); };
  entry.make = [](const config::AnyOptions& options) {
    return std::make_unique<LoadBalancingLoss>(options.as<LoadBalancingOptions>());
  };
  return entry;
}

}  // namespace conclave::moe
