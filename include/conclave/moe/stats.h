// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "conclave/moe/forward_context.h"

namespace conclave::moe {

// Integer counts of one layer over any number of micro-batches.
struct RoutingCounts {
  std::vector<int64_t> requested, kept;  // [E]
};

// Sums up the counts of plans where the plans are; the host waits for a device in to_host() only.
class CountSums {
 public:
  void add(const RoutingPlan& plan);  // plans without pairs (slots, mixtures) add nothing
  RoutingCounts to_host() const;

 private:
  at::Tensor requested_E_, kept_E_;
};

// Pure formulas over counts; every one is defined for empty counts.
double load_max_over_mean(const std::vector<int64_t>& counts);  // 1: balanced; 0 without any count
double load_entropy(
    const std::vector<int64_t>& counts);                // of the shares, over log E: 1 balanced, 0 one expert
double dead_share(const std::vector<int64_t>& counts);  // experts that nobody asked for
double drop_rate(const RoutingCounts& counts);          // 1 - kept / requested

}  // namespace conclave::moe
