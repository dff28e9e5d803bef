// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "status.h"

namespace conclave::kernels::cuda {

constexpr int kWarp = 32;

// Of a block of our kernels, but where they say otherwise.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;

struct Grid {
  int64_t blocks = 0;
  int threads = 0;
  size_t shared_bytes = 0;  // dynamic
  Stream stream = nullptr;
};

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Puts `kernel` into the stream; an empty grid is no work. Through a function and not <<<>>>, so that a plain
// C++ compiler reads kernels too (tests/kernels/emulator).
template <class... Parameters>
Status launch(const Grid& grid, void (*kernel)(Parameters...),
              std::type_identity_t<Parameters>... arguments) {
  if (grid.blocks == 0) return Status::kOk;
  if (grid.blocks > INT32_MAX) return Status::kInvalid;
  if (grid.shared_bytes > 48 * 1024) {
    const auto raised = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(grid.shared_bytes));
    if (raised != cudaSuccess) return static_cast<Status>(raised);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = grid.stream;
  return static_cast<Status>(cudaLaunchKernelEx(&config, kernel, arguments...));
}

// The block's dynamic shared memory.
template <class T>
__device__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ uint4 conclave_dynamic_shared[];
  return reinterpret_cast<T*>(conclave_dynamic_shared);
#else
  return static_cast<T*>(emulator::dynamic_shared());
#endif
}

__device__ inline int lane() {
  return static_cast<int>(threadIdx.x) % kWarp;
}
__device__ inline int warp_in_block() {
  return static_cast<int>(threadIdx.x) / kWarp;
}

}  // namespace conclave::kernels::cuda
