// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

// Compiles a CPU kernel twice, for AVX2+FMA machines and for any x86-64, and picks one when the program is
// loaded. Sanitizers and other architectures get one plain version.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define CONCLAVE_CPU_VARIANTS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CONCLAVE_CPU_VARIANTS
#endif

namespace conclave::kernels {

// e^x without branches or library calls, so that loops over it vectorise. Relative error below 2^-22 on
// [-87.3, 88.7]; the argument is clamped to that range, so large negative values give about 1e-38, not 0, and
// NaN stays NaN. Range reduction x = n ln2 + r with |r| <= ln2 / 2, Taylor polynomial of degree 7 in r.
[[gnu::always_inline]] inline float fast_exp(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.7f ? 88.7f : x;
  const float rounded = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = rounded - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  bits = static_cast<int32_t>((static_cast<uint32_t>(bits) - 0x4B400000u + 127u) << 23);
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}
[[gnu::always_inline]] inline double fast_exp(double x) {
  return std::exp(x);
}

// sum of term(i) over [0, count). Several partial sums, because one running sum would keep the loop from
// vectorising; their number is fixed, so the order of additions is too.
template <class W, class Term>
[[gnu::always_inline]] inline W lane_sum(int64_t count, Term term) {
  constexpr int64_t kLanes = 16;
  W partial[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) partial[lane] += term(i + lane);
  }
  W total = 0;
  for (; i < count; ++i) total += term(i);
  for (int64_t lane = 0; lane < kLanes; ++lane) total += partial[lane];
  return total;
}

}  // namespace conclave::kernels
