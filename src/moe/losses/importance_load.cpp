// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numbers>

#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "conclave/core/error.h"
#include "conclave/moe/losses/losses.h"

namespace conclave::moe {

void ImportanceOptions::fields(config::Fields& f) {
  f("weight", weight, "Coefficient in the objective.").min(0);
  f("importance_of", importance_of, {{"weights", ImportanceOf::kWeights}, {"probs", ImportanceOf::kProbs}},
    "Sum the combine weights of the selected experts, or the scores of all.");
}

void LoadOptions::fields(config::Fields& f) {
  f("weight", weight, "Coefficient in the objective.").min(0);
}

at::Tensor squared_variation(const at::Tensor& values_E) {
  const auto mean = values_E.mean();
  return values_E.sub(mean).square().mean().div(mean.square().add(1e-10));
}

at::Tensor selection_probability(const at::Tensor& clean_UE, const at::Tensor& threshold_UE,
                                 const at::Tensor& sigma_UE) {
  const auto gap_UE = clean_UE.sub(threshold_UE);
  const auto certain_UE = gap_UE.detach().isfinite().logical_not().logical_or(sigma_UE.detach().le(0));
  const auto z_UE = gap_UE.masked_fill(certain_UE, 0.0).div(sigma_UE.masked_fill(certain_UE, 1.0));
  const auto smooth_UE = z_UE.mul(1.0 / std::numbers::sqrt2).erf().add(1.0).mul(0.5);
  return at::where(certain_UE, gap_UE.detach().gt(0).to(clean_UE.scalar_type()), smooth_UE);
}

namespace {

// Summed weights of the experts, [E]. Over a dense [U, E], where every pair has a place of its own: the order
// of the sum is the same in every run, which an index_add on a GPU does not promise. Pairs that are none go
// into a row that is cut off.
at::Tensor sum_by_expert(const SparsePlan& plan, int64_t num_experts) {
  const int64_t num_units = plan.unit_offsets_U1.size(0) - 1;
  const auto place_N = plan.unit_N.to(at::kLong)
                           .masked_fill(plan.expert_N.lt(0), num_units)
                           .mul(num_experts)
                           .add(plan.expert_N.clamp_min(0));
  return at::zeros({(num_units + 1) * num_experts}, plan.weight_N.options())
      .index_copy(0, place_N, plan.weight_N)
      .view({num_units + 1, num_experts})
      .narrow(0, 0, num_units)
      .sum(0);
}

// The mean over the step's micro-batches of CV^2 of `per_expert`.
at::Tensor variation_share(const at::Tensor& per_expert_E, const StepTotals& totals) {
  return squared_variation(per_expert_E)
      .div(static_cast<double>(std::max<int64_t>(totals.num_micro_batches, 1)));
}

class ImportanceLoss : public AuxLoss {
 public:
  explicit ImportanceLoss(const ImportanceOptions& options) : options_(options) {}
  double weight(int64_t step) const override { return options_.weight.at(step); }

  at::Tensor share(const RouterTrace& trace, const StepTotals& totals) const override {
    if (options_.importance_of == ImportanceOf::kProbs) {
      CONCLAVE_CHECK(trace.probs_UE.defined(), "importance of probs needs a router that scores experts");
      return variation_share(trace.probs_UE.sum(0), totals);
    }
    const auto* plan = std::get_if<SparsePlan>(&trace.plan.body);
    CONCLAVE_CHECK(plan, "importance of weights needs a router that chooses experts per token");
    return variation_share(sum_by_expert(*plan, trace.plan.num_experts), totals);
  }

 private:
  ImportanceOptions options_;
};

class LoadLoss : public AuxLoss {
 public:
  explicit LoadLoss(const LoadOptions& options) : options_(options) {}
  double weight(int64_t step) const override { return options_.weight.at(step); }

  at::Tensor share(const RouterTrace& trace, const StepTotals& totals) const override {
    CONCLAVE_CHECK(trace.tensors.count("threshold") > 0,
                   "the loss 'load' needs router.noise in training, and no group limit");
    const auto& threshold_UE = trace.tensors.at("threshold");
    const auto biased = threshold_UE.detach().isnan().any();  // on a device the value is NaN instead
    CONCLAVE_CHECK(!biased.is_cpu() || !biased.item<bool>(),
                   "the loss 'load' needs a router without selection bias: no threshold decides beside one");
    const auto load_UE = selection_probability(trace.tensors.at("clean_logits"), threshold_UE,
                                               trace.tensors.at("noise_sigma"));
    return variation_share(load_UE.sum(0), totals).masked_fill(biased, NAN);
  }

 private:
  LoadOptions options_;
};

}  // namespace

AuxLossEntry importance_entry() {
  AuxLossEntry entry;
  entry.name = "importance";
  entry.doc = "Squared coefficient of variation of the experts' summed weights.";
  entry.defaults = [] { return config::AnyOptions(ImportanceOptions{}); };
  entry.traits = [](const config::AnyOptions& options) {
    const bool probs = options.as<ImportanceOptions>().importance_of == ImportanceOf::kProbs;
    return LossTraits{.metric = "importance",
                      .records = {probs ? "probs" : "pairs"},
                      .remedy = "use it with topk, or remove it"};
  };
  entry.make = [](const config::AnyOptions& options) {
    return std::make_unique<ImportanceLoss>(options.as<ImportanceOptions>());
  };
  return entry;
}

AuxLossEntry load_entry() {
  AuxLossEntry entry;
  entry.name = "load";
  entry.doc = "Squared coefficient of variation of the experts' smooth load under noise.";
  entry.defaults = [] { return config::AnyOptions(LoadOptions{}); };
  entry.traits = [](const config::AnyOptions&) {
    return LossTraits{.metric = "load",
                      .records = {"threshold"},
                      .remedy =
                          "it needs topk with router.noise: {type: learned_gaussian} (or gaussian), "
                          "without group_limited and balance_update"};
  };
  entry.make = [](const config::AnyOptions& options) {
    return std::make_unique<LoadLoss>(options.as<LoadOptions>());
  };
  return entry;
}

}  // namespace conclave::moe
