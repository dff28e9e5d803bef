// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "conclave/config/fields.h"
#include "conclave/moe/forward_context.h"

namespace conclave::moe {

// Totals of the whole optimizer step over all micro-batches and ranks, known before the first forward.
struct StepTotals {
  int64_t num_tokens = 0;  // not padding
  int64_t num_targets = 0;
  int64_t num_micro_batches = 1;
  int64_t num_sequences = 1;  // sequences with at least one token
};

// An auxiliary loss is an additive share of the step's objective: shares of all micro-batches are summed and
// never divided again, so accumulation and the number of ranks cannot change it. It never calls a collective.
class AuxLoss {
 public:
  virtual ~AuxLoss() = default;
  // The unweighted share of this micro-batch for one layer; 0-dim, differentiable. A micro-batch without
  // tokens gives 0.
  virtual at::Tensor share(const RouterTrace& trace, const StepTotals& totals) const = 0;
  virtual double weight(int64_t step) const = 0;
};

struct AuxLossEntry : config::PluginInfo {
  std::function<std::unique_ptr<AuxLoss>(const config::AnyOptions&)> make;
};

}  // namespace conclave::moe
