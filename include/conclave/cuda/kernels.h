// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/ops/kernel_table.h"

struct CUstream_st;

namespace conclave::cuda {

// The CUDA kernels behind `ops`, put into the stream that `current_stream` tells at every call. Of a build
// with tests it also runs them on the emulator, over CPU tensors. Nothing waits for the device but
// sort_pairs, which brings the experts' offsets to the host. fp64 scores and more than 1024 experts, or more
// than 32 choices of them, are sorted by ATen: select_top_k of those costs a sort of every row.
ops::KernelTable make_kernels(CUstream_st* (*current_stream)());

}  // namespace conclave::cuda
