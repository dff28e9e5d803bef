// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "conclave/config/fields.h"
#include "conclave/moe/stats.h"

namespace conclave::moe {

// Changes a router's selection bias outside autograd, once per optimizer step that was taken, from the
// requests of the whole step: real tokens only, before capacity drops, never in evaluation, each token once.
class BalanceUpdater {
 public:
  virtual ~BalanceUpdater() = default;
  // bias_E [E] fp32, in place; counts of the same layer over the step.
  virtual void apply(const at::Tensor& bias_E, const RoutingCounts& counts, int64_t step) const = 0;
};

// `make` returns null for "none".
struct BalanceEntry : config::PluginInfo {
  std::function<std::unique_ptr<BalanceUpdater>(const config::AnyOptions&)> make;
};

// Loss-free balancing (Wang et al., 2024; DeepSeek-V3): b_e += rate * sign(mean load - load_e), sign(0) = 0.
// The sign is that of an integer, so no rounding can flip it.
struct LossFreeOptions {
  config::Value rate = 1e-3;
  void fields(config::Fields& f);
};
BalanceEntry loss_free_entry();

struct NoBalanceOptions {
  void fields(config::Fields&) {}
};
BalanceEntry no_balance_entry();

}  // namespace conclave::moe
