// SPDX-License-Identifier: Apache-2.0
#pragma once

struct CUstream_st;

// What the declarations of CUDA kernels need; plain C++, so that headers can be read without a toolkit.
namespace conclave::kernels::cuda {

using Stream = CUstream_st*;  // cudaStream_t

// A cudaError_t: 0 when the work was put into the stream. Shapes that a kernel does not take are refused with
// kInvalid before anything is launched.
enum class Status : int { kOk = 0, kInvalid = 1 };

}  // namespace conclave::kernels::cuda
