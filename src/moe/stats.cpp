// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace conclave::moe {

namespace {

int64_t total(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

void add_counts(std::vector<int64_t>& sum, const at::Tensor& counts_E) {
  sum.resize(static_cast<size_t>(counts_E.numel()), 0);
  const int64_t* counts = counts_E.const_data_ptr<int64_t>();
  for (size_t e = 0; e < sum.size(); ++e) sum[e] += counts[e];
}

}  // namespace

void RoutingCounts::add(const RoutingPlan& plan) {
  const auto* sparse = std::get_if<SparsePlan>(&plan.body);
  if (!sparse) return;
  add_counts(requested, sparse->requested_E);
  add_counts(kept, sparse->kept_E);
}

double load_max_over_mean(const std::vector<int64_t>& counts) {
  const int64_t sum = total(counts);
  if (sum == 0) return 0.0;
  return static_cast<double>(*std::max_element(counts.begin(), counts.end())) *
         static_cast<double>(counts.size()) / static_cast<double>(sum);
}

double load_entropy(const std::vector<int64_t>& counts) {
  const auto sum = static_cast<double>(total(counts));
  if (sum == 0 || counts.size() < 2) return 0.0;
  double entropy = 0.0;
  for (const int64_t count : counts) {
    const double share = static_cast<double>(count) / sum;
    if (share > 0) entropy -= share * std::log(share);
  }
  return entropy / std::log(static_cast<double>(counts.size()));
}

double dead_share(const std::vector<int64_t>& counts) {
  if (counts.empty()) return 0.0;
  return static_cast<double>(std::count(counts.begin(), counts.end(), 0)) /
         static_cast<double>(counts.size());
}

double drop_rate(const RoutingCounts& counts) {
  const int64_t requested = total(counts.requested);
  return requested == 0 ? 0.0
                        : 1.0 - static_cast<double>(total(counts.kept)) / static_cast<double>(requested);
}

}  // namespace conclave::moe
