// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/losses/selector_losses.h"

#include <algorithm>

#include "conclave/core/error.h"

namespace conclave::moe {

void SelectorEntropyOptions::fields(config::Fields& f) {
  f("weight", weight, "Coefficient in the objective.").min(0);
}
void ReachabilityOptions::fields(config::Fields& f) {
  f("weight", weight, "Coefficient in the objective.").min(0);
}

namespace {

constexpr double kSelectorEpsilon = 1e-6;

// A loss that is a mean over the step's tokens of `term(selectors)` summed.
class SelectorLoss : public AuxLoss {
 public:
  using Term = at::Tensor (*)(const at::Tensor& r_UKE);
  SelectorLoss(config::Value weight, Term term) : weight_(std::move(weight)), term_(term) {}

  double weight(int64_t step) const override { return weight_.at(step); }
  at::Tensor share(const RouterTrace& trace, const StepTotals& totals) const override {
    const auto it = trace.tensors.find("selector_UKE");
    CONCLAVE_CHECK(it != trace.tensors.end(), "this auxiliary loss needs the router dselect_k");
    return term_(it->second).sum().div(static_cast<double>(std::max<int64_t>(totals.num_tokens, 1)));
  }

 private:
  config::Value weight_;
  Term term_;
};

at::Tensor entropy_term(const at::Tensor& r) {
  return r.mul(r.add(kSelectorEpsilon).log()).neg();
}
at::Tensor reachability_term(const at::Tensor& r) {
  return r.sum(-1).add(kSelectorEpsilon).reciprocal();
}

LossTraits selector_traits(const char* metric) {
  return {.metric = metric, .records = {"selector_UKE"}, .remedy = "use it with the router dselect_k"};
}

}  // namespace

AuxLossEntry selector_entropy_entry() {
  AuxLossEntry entry;
  entry.name = "selector_entropy";
  entry.doc = "Pulls every selector of dselect_k to one expert.";
  entry.defaults = [] { return config::AnyOptions(SelectorEntropyOptions{}); };
  entry.traits = [](const config::AnyOptions&) { return selector_traits("selector_entropy"); };
  entry.make = [](const config::AnyOptions& options) {
    return std::make_unique<SelectorLoss>(options.as<SelectorEntropyOptions>().weight, entropy_term);
  };
  return entry;
}

AuxLossEntry reachability_entry() {
  AuxLossEntry entry;
  entry.name = "reachability";
  entry.doc = "Keeps selectors of dselect_k at codes that have an expert.";
  entry.defaults = [] { return config::AnyOptions(ReachabilityOptions{}); };
  entry.traits = [](const config::AnyOptions&) { return selector_traits("reachability"); };
  entry.make = [](const config::AnyOptions& options) {
    return std::make_unique<SelectorLoss>(options.as<ReachabilityOptions>().weight, reachability_term);
  };
  return entry;
}

}  // namespace conclave::moe
