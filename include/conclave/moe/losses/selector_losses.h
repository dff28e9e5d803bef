// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/loss.h"

// The two regularisers of DSelect-k (Hazimeh et al., 2021); both need its selectors. Means over the step's
// tokens (the published code sums over the batch, so its weights are larger by the number of examples).
namespace conclave::moe {

// Mean over tokens of sum over selectors and experts of -r log(r + 1e-6): pulls every selector to one expert.
// The epsilon changes the value where r is below about 1e-4.
struct SelectorEntropyOptions {
  config::Value weight = 1e-3;
  void fields(config::Fields& f);
};
AuxLossEntry selector_entropy_entry();

// Mean over tokens of sum over selectors of 1 / (sum_e r + 1e-6): keeps selectors away from binary codes that
// no expert has, when E is not a power of two; the constant k otherwise. The epsilon caps a selector at 1e6.
struct ReachabilityOptions {
  config::Value weight = 1.0;
  void fields(config::Fields& f);
};
AuxLossEntry reachability_entry();

}  // namespace conclave::moe
