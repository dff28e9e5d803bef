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

void add_counts(at::Tensor& sum, const at::Tensor& counts_E) {
  sum = sum.defined() ? sum.add(counts_E) : counts_E;
}

std::vector<int64_t> values_of(const at::Tensor& counts_E) {
  if (!counts_E.defined()) return {};
  const auto on_host = counts_E.cpu();
  const auto* counts = on_host.const_data_ptr<int64_t>();
  return {counts, counts + on_host.numel()};
}

}  // namespace

void CountSums::add(const RoutingPlan& plan) {
  const auto* sparse = std::get_if<SparsePlan>(&plan.body);
  if (!sparse) return;
  add_counts(requested_E_, sparse->requested_E);
  add_counts(kept_E_, sparse->kept_E);
}

RoutingCounts CountSums::to_host() const {
  return {values_of(requested_E_), values_of(kept_E_)};
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
