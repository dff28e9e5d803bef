// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

// Matrix products of mixed storage. In bf16 training activations are stored as bf16 and parameters stay fp32
// masters, so a product's operands have to be brought to one type:
//   bf16, on a GPU and where the CPU has bf16 dot products (AVX512-BF16 or AMX): operands rounded to bf16,
//   fp32 accumulation; fp32, elsewhere: bf16 activations are widened, nothing is rounded, and the product
//   runs at fp32 speed instead of through a slow emulation.
// Both lie within the bf16 tolerance of each other. fp32 and fp64 activations are used as they are.
namespace conclave::ops {

// The type in which a device multiplies values stored as `stored`.
c10::ScalarType product_dtype(c10::DeviceType device, c10::ScalarType stored);
c10::ScalarType product_dtype(const at::Tensor& stored);

// x [..., in] times weight [out, in] transposed -> [..., out] in the dtype of x. The gradient of the weight
// has the weight's dtype.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace conclave::ops
