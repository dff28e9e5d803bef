// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "reduce.h"

// The largest of the values that a warp holds, exactly: values and indices are compared as one 64-bit key, so
// that equal values go to the lowest index whatever the number of lanes.
namespace conclave::kernels::cuda {

// Never chosen; below every real score, minus infinity included.
constexpr uint64_t kNoKey = 0;

// Larger values have larger keys, and of equal ones the lowest index. NaN has kNoKey. -0 counts as +0.
__device__ inline uint64_t key_of(float value, int index) {
  if (value != value) return kNoKey;
  const uint32_t bits = __float_as_uint(value + 0.0f);
  const uint32_t ordered = (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | static_cast<uint32_t>(~static_cast<uint32_t>(index));
}
__device__ inline int index_of(uint64_t key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}

// Entry `lane() + 32 i` of a row is keys[i] of that lane. Takes the largest key out of the row; all lanes get
// its index, or -1 if there is none.
template <int V>
__device__ int take_largest(uint64_t (&keys)[V]) {
  uint64_t best = keys[0];
#pragma unroll
  for (int i = 1; i < V; ++i) best = keys[i] > best ? keys[i] : best;
  best = warp_max(best);
  if (best == kNoKey) return -1;
#pragma unroll
  for (int i = 0; i < V; ++i) keys[i] = keys[i] == best ? kNoKey : keys[i];
  return index_of(best);
}

// call(V) with the smallest V in {1, 2, 4, 8, 16, 32} for which 32 V values hold a row.
template <int64_t Most, class Call>
Status with_values_per_lane(int64_t count, Call call) {
  if (count <= 32) return call(std::integral_constant<int, 1>());
  if (count <= 64) return call(std::integral_constant<int, 2>());
  if (count <= 128) return call(std::integral_constant<int, 4>());
  if (count <= 256) return call(std::integral_constant<int, 8>());
  if (count <= 512) return call(std::integral_constant<int, 16>());
  if constexpr (Most > 512) {
    if (count <= 1024) return call(std::integral_constant<int, 32>());
  }
  return Status::kInvalid;
}

}  // namespace conclave::kernels::cuda
