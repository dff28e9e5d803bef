// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "bfloat16.h"

namespace conclave::kernels {

// Of the dtype table, relative to the largest value.
template <class T>
double tolerance();
template <>
inline double tolerance<float>() {
  return 2e-5;
}
template <>
inline double tolerance<double>() {
  return 1e-9;
}
template <>
inline double tolerance<bfloat16>() {
  return 2e-2;
}

template <class T>
std::vector<T> random_values(size_t count, unsigned seed, double scale = 1.0) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0.0, scale);
  std::vector<T> values(count);
  for (auto& value : values) store(value, static_cast<wide_t<T>>(normal(engine)));
  return values;
}

template <class T>
void expect_close(const std::vector<T>& got, const std::vector<T>& want) {
  double largest = 1e-3;
  for (const auto& value : want) largest = std::max(largest, std::abs(static_cast<double>(load(value))));
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(load(got[i]), load(want[i]), tolerance<T>() * largest) << "element " << i;
  }
}

using Storage = testing::Types<float, double, bfloat16>;

}  // namespace conclave::kernels
