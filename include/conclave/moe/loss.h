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
  // For a loss with needs_exact_global_counts(): the sum of its own count() for the layer at hand over all
  // micro-batches and ranks of the step. Undefined for every other loss.
  at::Tensor step_counts = {};
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
  // Whether share() reads StepTotals::step_counts, which costs a forward pass over the step's micro-batches
  // before the first backward.
  virtual bool needs_exact_global_counts() const { return false; }
  // Integer counts of one layer and micro-batch, [n] int64; summed over the step by the caller.
  virtual at::Tensor count(const RouterTrace&) const { return {}; }
};

// What a loss asks for, as a function of its options.
struct LossTraits {
  std::string scope = "";                 // "" where the loss knows one scope only
  std::string metric = "";                // behind "moe/"; unique per (type, scope)
  std::vector<std::string> records = {};  // of the router, see Caps::records
  std::string remedy = "";                // for a router that does not record them
};

struct AuxLossEntry : config::PluginInfo {
  std::function<LossTraits(const config::AnyOptions&)> traits;
  std::function<std::unique_ptr<AuxLoss>(const config::AnyOptions&)> make;
};

}  // namespace conclave::moe
