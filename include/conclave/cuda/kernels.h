// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/ops/grouped_experts.h"

struct CUstream_st;

namespace conclave::cuda {

// What of ATen runs on the GPU at hand.
struct Abilities {
  bool grouped_bf16 = false;     // at::_grouped_mm in one launch: compute capability 9.0 and 10.0
  bool flash_attention = false;  // at::_flash_attention_forward: 8.0 and above
  std::function<std::unique_ptr<ops::DeviceGraphs>()> graphs = {};
};

// The CUDA kernels behind `ops`, put into the stream that `current_stream` tells at every call. Of a build
// with tests it also runs them on the emulator, over CPU tensors. Nothing waits for the device, but where
// the experts' products cannot be grouped. fp64 scores and more than 1024 experts, or more than 32 choices of
// them, are sorted by ATen: select_top_k of those costs a sort of every row.
ops::KernelTable make_kernels(CUstream_st* (*current_stream)(), const Abilities& abilities);

}  // namespace conclave::cuda
