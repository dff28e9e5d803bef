// SPDX-License-Identifier: Apache-2.0
#include <numeric>
#include <vector>

#include <ATen/ops/tensor.h>

#include "conclave/core/error.h"
#include "conclave/moe/balance.h"

namespace conclave::moe {

void LossFreeOptions::fields(config::Fields& f) {
  f("rate", rate, "Change of an expert's selection bias per step.")
      .min(0)
      .alias("moe_router_bias_update_rate");
}

namespace {

class LossFreeUpdater : public BalanceUpdater {
 public:
  explicit LossFreeUpdater(const LossFreeOptions& options) : options_(options) {}

  void apply(const at::Tensor& bias_E, const RoutingCounts& counts, int64_t step) const override {
    const auto& load = counts.requested;
    CONCLAVE_CHECK(bias_E.numel() == static_cast<int64_t>(load.size()),
                   "loss_free: needs a router that chooses experts per token, with one bias per expert");
    const auto experts = static_cast<int64_t>(load.size());
    const int64_t total = std::accumulate(load.begin(), load.end(), int64_t{0});
    const auto rate = static_cast<float>(options_.rate.at(step));
    std::vector<float> change;
    for (const int64_t of_expert : load) {
      const int64_t missing = total - of_expert * experts;  // experts * (mean - load)
      change.push_back(missing > 0 ? rate : missing < 0 ? -rate : 0.0f);
    }
    bias_E.add_(at::tensor(change, at::kFloat).to(bias_E.device()));
  }

 private:
  LossFreeOptions options_;
};

}  // namespace

BalanceEntry loss_free_entry() {
  BalanceEntry entry;
  entry.name = "loss_free";
  entry.doc = "A selection bias per expert moves against its load.";
  entry.defaults = [] { return config::AnyOptions(LossFreeOptions{}); };
  entry.make = [](const config::AnyOptions& options) {
    return std::make_unique<LossFreeUpdater>(options.as<LossFreeOptions>());
  };
  return entry;
}

BalanceEntry no_balance_entry() {
  BalanceEntry entry;
  entry.name = "none";
  entry.doc = "No change outside the gradient.";
  entry.defaults = [] { return config::AnyOptions(NoBalanceOptions{}); };
  entry.make = [](const config::AnyOptions&) { return std::unique_ptr<BalanceUpdater>(); };
  return entry;
}

}  // namespace conclave::moe
