// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <bit>
#include <cstdint>

// Storage types of kernels. A kernel is a template over how values are stored; arithmetic is in wide_t of it:
// float for float and bfloat16, double for double.
namespace conclave::kernels {

// The upper half of a float; the layout of c10::BFloat16.
struct bfloat16 {
  uint16_t bits;
};

template <class T>
struct Wide {
  using type = T;
};
template <>
struct Wide<bfloat16> {
  using type = float;
};
template <class T>
using wide_t = typename Wide<T>::type;

[[gnu::always_inline]] inline float load(bfloat16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}
[[gnu::always_inline]] inline float load(float x) {
  return x;
}
[[gnu::always_inline]] inline double load(double x) {
  return x;
}

// Rounds to nearest, ties to even; NaN stays NaN.
[[gnu::always_inline]] inline void store(bfloat16& out, float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out.bits = static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}
[[gnu::always_inline]] inline void store(float& out, float x) {
  out = x;
}
[[gnu::always_inline]] inline void store(double& out, double x) {
  out = x;
}

}  // namespace conclave::kernels
