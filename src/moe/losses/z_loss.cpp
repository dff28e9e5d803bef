// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "conclave/core/error.h"
#include "conclave/moe/losses/losses.h"

namespace conclave::moe {

void ZLossOptions::fields(config::Fields& f) {
  f("weight", weight, "Coefficient in the objective.").min(0);
}

namespace {

// Mean over the step's tokens of logsumexp(z)^2 (ST-MoE, Zoph et al., 2022, eq. 5).
class ZLoss : public AuxLoss {
 public:
  explicit ZLoss(const ZLossOptions& options) : options_(options) {}
  double weight(int64_t step) const override { return options_.weight.at(step); }
  at::Tensor share(const RouterTrace& trace, const StepTotals& totals) const override {
    CONCLAVE_CHECK(trace.logits_UE.defined(), "z_loss needs a router with logits");
    return trace.logits_UE.logsumexp(-1).square().sum().div(
        static_cast<double>(std::max<int64_t>(totals.num_tokens, 1)));
  }

 private:
  ZLossOptions options_;
};

}  // namespace

AuxLossEntry z_loss_entry() {
  AuxLossEntry entry;
  entry.name = "z_loss";
  entry.doc = "Keeps router logits small: mean of logsumexp squared.";
  entry.defaults = [] { return config::AnyOptions(ZLossOptions{}); };
  entry.traits = [](const config::AnyOptions&) {
    return LossTraits{
        .metric = "z_loss", .records = {"logits"}, .remedy = "use it with topk or expert_choice"};
  };
  entry.make = [](const config::AnyOptions& options) {
    return std::make_unique<ZLoss>(options.as<ZLossOptions>());
  };
  return entry;
}

}  // namespace conclave::moe
