// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::model {

void SamplingOptions::check() const {
  CONCLAVE_CHECK(max_tokens >= 0, fmt::format("max_tokens is {}; it must be 0 or more", max_tokens));
  CONCLAVE_CHECK(std::isfinite(temperature) && temperature >= 0,
                 fmt::format("temperature is {}; it must be 0 (greedy) or more", temperature));
  CONCLAVE_CHECK(top_p > 0 && top_p <= 1, fmt::format("top_p is {}; it must be in (0, 1]", top_p));
}

int32_t sample_token(const at::Tensor& logits_V, const SamplingOptions& options, double draw) {
  const auto wide = logits_V.detach().to(at::kCPU, at::kDouble).contiguous();
  std::vector<double> p(wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel());
  const auto best = std::max_element(p.begin(), p.end());
  CONCLAVE_CHECK(std::all_of(p.begin(), p.end(), [](double logit) { return std::isfinite(logit); }),
                 "generation: the model's logits are not finite; use an earlier checkpoint");
  if (options.temperature == 0) return static_cast<int32_t>(best - p.begin());
  const double largest = *best;
  for (double& value : p) value = std::exp((value - largest) / options.temperature);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);

  std::vector<int32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)];
  });
  // The nucleus: at least one token, and no more than it takes to reach top_p.
  size_t kept = 0;
  double mass = 0;
  while (kept < order.size() && (kept == 0 || mass < options.top_p * sum)) {
    mass += p[static_cast<size_t>(order[kept++])];
  }
  double below = 0;
  for (size_t i = 0; i + 1 < kept; ++i) {
    below += p[static_cast<size_t>(order[i])];
    if (draw * mass < below) return order[i];
  }
  return order[kept - 1];
}

}  // namespace conclave::model
