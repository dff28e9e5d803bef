// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/train/metrics.h"

namespace conclave::train {

struct MetricsLine {
  int64_t step = 0;
  double time = 0.0;
  std::vector<Metric> metrics = {};
};

// One line of metrics.jsonl with its end. Throws Error for a name that cannot stand there.
std::string render_metrics_line(int64_t step, double wall_time, std::span<const Metric> metrics);

// Calls `visit(line, offset behind the line)` for every whole line of `text`. Throws Error (kData) with
// file:line.
void for_each_metrics_line(std::string_view text, const std::string& file,
                           const std::function<void(const MetricsLine&, size_t)>& visit);

}  // namespace conclave::train
