// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/moe_metrics.h"

#include <fmt/format.h>

namespace conclave::train {

namespace {

std::vector<Metric> layer_metrics(const LayerRouting& layer) {
  std::vector<Metric> metrics;
  if (!layer.counts->requested.empty()) {
    const auto& counts = *layer.counts;
    metrics = {{"moe/load_max_over_mean", moe::load_max_over_mean(counts.requested)},
               {"moe/load_entropy", moe::load_entropy(counts.requested)},
               {"moe/dead_share", moe::dead_share(counts.requested)},
               {"moe/drop_rate", moe::drop_rate(counts)}};
  }
  if (layer.bias_norm) metrics.push_back({"moe/bias_norm", *layer.bias_norm});
  return metrics;
}

}  // namespace

std::vector<Metric> moe_metrics(std::span<const LayerRouting> layers, MoeDetail detail) {
  std::vector<Metric> means, single;
  std::vector<double> number;  // of layers in each mean
  if (detail == MoeDetail::kOff) return {};
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const auto& metric : layer_metrics(layers[i])) {
      size_t at = 0;
      while (at < means.size() && means[at].name != metric.name) ++at;
      if (at == means.size()) {
        means.push_back({metric.name, 0.0});
        number.push_back(0.0);
      }
      means[at].value += metric.value;
      number[at] += 1.0;
      if (detail == MoeDetail::kFull) {
        single.push_back({fmt::format("{}_layer_{}", metric.name, i), metric.value});
      }
    }
  }
  for (size_t i = 0; i < means.size(); ++i) means[i].value /= number[i];
  means.insert(means.end(), single.begin(), single.end());
  return means;
}

}  // namespace conclave::train
