// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "launch.h"

// Sums and maxima over threads, in an order that depends on nothing but the shape: two runs are bitwise
// equal.
namespace conclave::kernels::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

// All 32 lanes call them; all get the result.
template <class T>
__device__ T warp_sum(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}
template <class T>
__device__ T warp_max(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// All threads of the block call it; all get the result.
template <int kWarps, class T>
__device__ T block_sum(T value) {
  __shared__ T parts[kWarps];
  value = warp_sum(value);
  __syncthreads();  // the parts of the call before have been read
  if (lane() == 0) parts[warp_in_block()] = value;
  __syncthreads();
  T sum = parts[0];
  for (int w = 1; w < kWarps; ++w) sum += parts[w];
  return sum;
}

// out[i] = sum over p of partials[p, i], in the order of p, added to what is there if `add`.
template <class T>
__global__ void sum_partials(const T* partials, int64_t num_partials, T* out, int64_t width, bool add) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= width) return;
  T sum = add ? out[i] : T(0);
  for (int64_t p = 0; p < num_partials; ++p) sum += partials[p * width + i];
  out[i] = sum;
}

template <class T>
Status launch_sum_partials(const T* partials, int64_t num_partials, T* out, int64_t width, bool add,
                           Stream stream) {
  constexpr int kThreads = 64;
  return launch({.blocks = ceil_div(width, kThreads), .threads = kThreads, .stream = stream}, sum_partials<T>,
                partials, num_partials, out, width, add);
}

}  // namespace conclave::kernels::cuda
