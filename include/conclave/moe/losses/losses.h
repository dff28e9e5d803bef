// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/loss.h"

namespace conclave::moe {

enum class BalanceScope { kMicroBatch, kSequence };

// Load balancing over requested pairs, before capacity drops; padding never counts. Scope micro_batch: the
// mean over the step's micro-batches; sequence: the mean over the step's sequences. Summed over MoE layers.
struct LoadBalancingOptions {
  config::Value weight = 0.01;
  BalanceScope scope = BalanceScope::kMicroBatch;
  void fields(config::Fields& f);
};
AuxLossEntry load_balancing_entry();

struct ZLossOptions {
  config::Value weight = 0.001;
  void fields(config::Fields& f);
};
AuxLossEntry z_loss_entry();

}  // namespace conclave::moe
