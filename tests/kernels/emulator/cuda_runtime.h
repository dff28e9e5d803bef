// SPDX-License-Identifier: Apache-2.0
// Stands in for the toolkit's header, so that a C++ compiler compiles .cu files and a CPU runs their kernels,
// one block at a time with a fiber for each thread. What it shows that a GPU does not: barriers that
// not all threads reach, and, because the fibers run in an order that a test chooses, results that depend on
// who comes first. Covers what our kernels
// use.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>

#include <math.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(...)

struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  explicit dim3(unsigned first) : x(first) {}
};
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorNoDevice = 100 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

// The order in which the threads of a block run between barriers.
enum class Order { kForward, kBackward, kShuffled };
void set_order(Order order);
Order order_of_environment();  // CONCLAVE_EMULATOR_ORDER: forward (default), backward, shuffled

// Runs `thread` for every thread of every block. Throws std::logic_error, naming the block, when threads wait
// for each other for ever.
void run(const cudaLaunchConfig_t& config, const std::function<void()>& thread);
void* dynamic_shared();
void block_barrier();
// Every lane in `mask` brings `bytes` of `mine`; returns a place where those of lane i stand at i * 16, until
// the next call.
const unsigned char* exchange(unsigned mask, const void* mine, size_t bytes);
int lane();

template <class T>
T from_lane(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 16);
  const auto* all = exchange(mask, &value, sizeof value);
  std::memcpy(&value, all + 16 * source, sizeof value);
  return value;
}

}  // namespace emulator

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  if (config->blockDim.x > 1024) return cudaErrorInvalidValue;
  emulator::run(*config, [&] { kernel(arguments...); });
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  return bytes <= 227 * 1024 ? cudaSuccess : cudaErrorInvalidValue;
}

inline void __syncthreads() {
  emulator::block_barrier();
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::exchange(mask, nullptr, 0);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return emulator::from_lane(mask, value, source);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance) {
  return emulator::from_lane(mask, value, emulator::lane() ^ distance);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int distance) {
  const int lane = emulator::lane();
  return emulator::from_lane(mask, value, lane >= distance ? lane - distance : lane);
}
inline unsigned __match_any_sync(unsigned mask, int value) {
  const auto* all = emulator::exchange(mask, &value, sizeof value);
  unsigned same = 0;
  for (int i = 0; i < 32; ++i) {
    if ((mask >> i & 1u) && std::memcmp(all + 16 * i, &value, sizeof value) == 0) same |= 1u << i;
  }
  return same;
}
inline int atomicAdd(int* at, int value) {
  return (*at += value) - value;
}
inline int __popc(unsigned bits) {
  return std::popcount(bits);
}
inline unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
inline float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}

enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
inline cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
