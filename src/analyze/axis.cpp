// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/axis.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "conclave/analyze/format.h"

namespace conclave::analyze {

namespace {

double nice_step(double extent, int count) {
  const double rough = extent / std::max(count, 1);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.8) return factor * power;
  }
  return 10.0 * power;
}

}  // namespace

double Scale::operator()(double value) const {
  if (!(high > low)) return 0.5 * (pixel_low + pixel_high);
  return pixel_low + (value - low) / (high - low) * (pixel_high - pixel_low);
}

std::vector<double> nice_ticks(double low, double high, int count) {
  const double extent = high - low;
  if (!std::isfinite(extent) || extent < 0) return {};
  const double size = std::max(std::abs(low), std::abs(high));
  if (extent <= size * 1e-12) return {low};  // includes low == high
  const double step = nice_step(extent, count);
  std::vector<double> ticks;
  const double first = std::ceil(low / step - 1e-9), last = std::floor(high / step + 1e-9);
  for (double i = first; i <= last; i += 1.0) ticks.push_back(i == 0.0 ? 0.0 : i * step);
  return ticks;
}

std::vector<std::string> tick_labels(std::span<const double> ticks) {
  double size = 0, gap = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < ticks.size(); ++i) {
    size = std::max(size, std::abs(ticks[i]));
    if (i > 0) gap = std::min(gap, ticks[i] - ticks[i - 1]);
  }
  if (!std::isfinite(gap)) gap = size;
  const int exponent = size > 0 ? static_cast<int>(std::floor(std::log10(size) + 1e-12)) : 0;
  std::vector<std::string> labels;
  for (const double tick : ticks) {
    const double factor = size >= 1e6   ? 1e6
                          : size >= 1e4 ? 1e3
                          : size < 1e-2 ? std::pow(10.0, exponent)
                                        : 1.0;
    const double step = gap / factor;
    const int decimals =
        step > 0 ? std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 8) : 0;
    labels.push_back(tick == 0.0 ? std::string("0")
                                 : fmt::format("{:.{}f}{}", tick / factor, decimals,
                                               size >= 1e6   ? "M"
                                               : size >= 1e4 ? "k"
                                               : size < 1e-2 ? power_of_ten(exponent)
                                                             : ""));
  }
  return labels;
}

Range range_of(std::span<const double> values, double margin) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > high) return {};
  const double size = std::max(std::abs(low), std::abs(high));
  if (high - low <= 1e-12 * size) {
    const double half = size > 0 ? 0.1 * size : 1.0;
    return {low - half, high + half};
  }
  const double extra = margin * (high - low);
  return {low - extra, high + extra};
}

}  // namespace conclave::analyze
