// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>
#include <string>
#include <vector>

namespace conclave::analyze {

// Linear map of values to pixels. A range without extent maps everything to the middle.
struct Scale {
  double low = 0, high = 1;
  double pixel_low = 0, pixel_high = 1;
  double operator()(double value) const;
};

// Multiples of 1, 2 or 5 times a power of ten inside [low, high], about `count` of them (at least one where
// the range allows it). Empty for a range that is not finite.
std::vector<double> nice_ticks(double low, double high, int count);

// A label per tick, all with the same number of decimals; thousands as "20k", small ones as "4×10⁻⁴".
std::vector<std::string> tick_labels(std::span<const double> ticks);

// Finite values' range, widened by `margin` of its extent; a single value gets a range around it. {0, 1}
// without any.
struct Range {
  double low = 0, high = 1;
};
Range range_of(std::span<const double> values, double margin);

}  // namespace conclave::analyze
