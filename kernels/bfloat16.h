// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <bit>
#include <cstdint>

// Storage types of kernels. A kernel is a template over how values are stored; arithmetic is in wide_t of it:
// float for float and bfloat16, double for double.
#ifdef __CUDACC__
#define CONCLAVE_INLINE __host__ __device__ __forceinline__
#else
#define CONCLAVE_INLINE [[gnu::always_inline]] inline
#endif

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

CONCLAVE_INLINE float load(bfloat16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}
CONCLAVE_INLINE float load(float x) {
  return x;
}
CONCLAVE_INLINE double load(double x) {
  return x;
}

// Rounds to nearest, ties to even; NaN stays NaN.
CONCLAVE_INLINE void store(bfloat16& out, float x) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out.bits = static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
#endif
}
CONCLAVE_INLINE void store(float& out, float x) {
  out = x;
}
CONCLAVE_INLINE void store(double& out, double x) {
  out = x;
}

}  // namespace conclave::kernels
