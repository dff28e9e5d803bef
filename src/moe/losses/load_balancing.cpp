// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include "conclave/core/error.h"
#include "conclave/moe/losses/losses.h"
#include "conclave/ops/functions.h"

namespace conclave::moe {

namespace {

const std::vector<std::pair<std::string, BalanceScope>>& scope_names() {
  static const std::vector<std::pair<std::string, BalanceScope>> names = {
      {"micro_batch", BalanceScope::kMicroBatch},
      {"sequence", BalanceScope::kSequence},
      {"global_batch", BalanceScope::kGlobalBatch}};
  return names;
}

}  // namespace

void LoadBalancingOptions::fields(config::Fields& f) {
  f("weight", weight, "Coefficient in the objective.").min(0).alias("coeff");
  f("scope", scope, scope_names(),
    "Tokens over which the share of requests and the mean score are taken; global_batch: the whole step, at "
    "the cost of one more forward pass.");
  f("choices", choices, {{"all", BalanceChoices::kAll}, {"first", BalanceChoices::kFirst}},
    "Count all choices of a token, or its first.");
  f("counts", counts, {{"requested", BalanceCounts::kRequested}, {"scores_topk", BalanceCounts::kScoresTopK}},
    "Count what was selected, or the best scores without selection bias and group limit.");
}

namespace {

// E * sum_e f_e P_e per group; f_e = n_e / sum(n), a constant; P_e = mean score, normalised over experts so
// that sigmoid scores are a distribution as well. Switch Transformer (Fedus et al., 2021), eq. 4, with the
// 1/k of the catalogue so that the value is 1 at balance for every k.
class LoadBalancingLoss : public AuxLoss {
 public:
  explicit LoadBalancingLoss(const LoadBalancingOptions& options) : options_(options) {}

  double weight(int64_t step) const override { return options_.weight.at(step); }
  bool needs_exact_global_counts() const override { return options_.scope == BalanceScope::kGlobalBatch; }
  at::Tensor count(const RouterTrace& trace) const override {
    return ops::count_values(requests(trace).expert_N, trace.plan.num_experts);
  }

  at::Tensor share(const RouterTrace& trace, const StepTotals& totals) const override {
    CONCLAVE_CHECK(trace.probs_UE.defined(), "load_balancing needs a router that scores experts per token");
    if (trace.probs_UE.size(0) == 0) return at::zeros({}, trace.probs_UE.options());
    const auto probs_UE = trace.probs_UE.div(trace.probs_UE.sum(-1, true));
    return options_.scope == BalanceScope::kGlobalBatch ? of_step(trace, probs_UE, totals)
                                                        : of_groups(trace, probs_UE, totals);
  }

 private:
  struct Requests {
    at::Tensor unit_N = {}, expert_N = {};  // int32; expert -1 does not count
  };
  Requests requests(const RouterTrace& trace) const {
    const bool first = options_.choices == BalanceChoices::kFirst;
    if (options_.counts == BalanceCounts::kScoresTopK) {
      CONCLAVE_CHECK(trace.num_choices > 0, "load_balancing: counts scores_topk needs a fixed top_k");
      const int64_t k = first ? 1 : trace.num_choices, num_units = trace.probs_UE.size(0);
      // Best logits where there are some: a score may underflow.
      const auto& scores = trace.logits_UE.defined() ? trace.logits_UE : trace.probs_UE;
      const auto best_UK = ops::select_top_k(scores.detach(), k);
      return {at::arange(num_units, best_UK.options()).repeat_interleave(k), best_UK.reshape({-1})};
    }
    const auto* plan = std::get_if<SparsePlan>(&trace.plan.body);
    CONCLAVE_CHECK(plan, "load_balancing needs a router that chooses experts per token");
    if (!first) return {plan->unit_N, plan->expert_N};
    return {plan->unit_N, plan->expert_N.masked_fill(plan->choice_N.ne(0), -1)};
  }

  // The share of the step's objective: f of the whole step, and this micro-batch's part of the mean score.
  static at::Tensor of_step(const RouterTrace& trace, const at::Tensor& probs_UE, const StepTotals& totals) {
    CONCLAVE_CHECK(totals.step_counts.defined(),
                   "load_balancing: scope global_batch needs the counts of the whole step");
    const auto total = totals.step_counts.sum().clamp_min(1).to(probs_UE.scalar_type());
    const auto f_E = totals.step_counts.to(probs_UE.scalar_type()).div(total);
    const auto p_E = probs_UE.sum(0).div(static_cast<double>(std::max<int64_t>(totals.num_tokens, 1)));
    return f_E.mul(p_E).sum().mul(static_cast<double>(trace.plan.num_experts));
  }

  at::Tensor of_groups(const RouterTrace& trace, const at::Tensor& probs_UE, const StepTotals& totals) const {
    const int64_t num_units = probs_UE.size(0), num_experts = trace.plan.num_experts;
    const bool by_sequence = options_.scope == BalanceScope::kSequence;
    const auto options = probs_UE.options();
    const auto group_U =
        by_sequence ? trace.plan.units.sequence_of_unit_U : at::zeros({num_units}, options.dtype(at::kLong));
    const int64_t num_groups = by_sequence ? trace.plan.units.num_sequences : 1;

    const auto pairs = requests(trace);
    const auto cell_N = group_U.index_select(0, pairs.unit_N)
                            .mul(num_experts)
                            .add(pairs.expert_N)
                            .masked_fill(pairs.expert_N.lt(0), -1);
    const auto counts_GE = ops::count_values(cell_N, num_groups * num_experts)
                               .to(probs_UE.scalar_type())
                               .view({num_groups, num_experts});
    const auto f_GE = counts_GE.div(counts_GE.sum(1, true).clamp_min(1));
    // A product with the groups' members, whose sum has the same order in every run.
    const auto member_GU =
        at::arange(num_groups, group_U.options()).unsqueeze(1).eq(group_U.unsqueeze(0)).to(options.dtype());
    const auto p_GE = member_GU.mm(probs_UE).div(member_GU.sum(1, true).clamp_min(1));
    const auto groups_in_step = by_sequence ? totals.num_sequences : totals.num_micro_batches;
    return f_GE.mul(p_GE).sum().mul(static_cast<double>(num_experts) /
                                    static_cast<double>(std::max<int64_t>(groups_in_step, 1)));
  }

  LoadBalancingOptions options_;
};

LossTraits balancing_traits(const LoadBalancingOptions& options) {
  LossTraits traits{.records = {"probs"}, .remedy = "use it with topk, or remove it"};
  for (const auto& [name, scope] : scope_names()) {
    if (scope == options.scope) traits.scope = name;
  }
  traits.metric = "load_balancing";
  if (options.scope != BalanceScope::kMicroBatch) traits.metric += "_" + traits.scope;
  const bool ranks =
      options.choices == BalanceChoices::kFirst || options.counts == BalanceCounts::kScoresTopK;
  traits.records.push_back(ranks ? "ranks" : "pairs");
  return traits;
}

}  // namespace

AuxLossEntry load_balancing_entry() {
  AuxLossEntry entry;
  entry.name = "load_balancing";
  entry.doc = "Pulls the experts' shares of tokens together: E sum f P.";
  entry.defaults = [] { return config::AnyOptions(LoadBalancingOptions{}); };
  entry.traits = [](const config::AnyOptions& options) {
    return balancing_traits(options.as<LoadBalancingOptions>());
  };
  entry.make = [](const config::AnyOptions& options) {
    return std::make_unique<LoadBalancingLoss>(options.as<LoadBalancingOptions>());
  };
  return entry;
}

}  // namespace conclave::moe
