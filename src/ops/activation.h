// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

// kernels/swiglu.h on tensors.
namespace conclave::ops {

// scale * act [rows, F] in `dtype` from h [rows, 2F]; scale_A [rows] may be undefined: 1.
at::Tensor activate(const at::Tensor& h_A2F, const at::Tensor& scale_A, c10::ScalarType dtype);

struct ActivationGradient {
  at::Tensor d_h_A2F, scaled_act_AF;  // in the type of d_act
};
// `scale_A` and `d_scale_A` [rows] may be undefined: scale 1, not wanted.
ActivationGradient activate_backward(const at::Tensor& h_A2F, const at::Tensor& d_act_AF,
                                     const at::Tensor& scale_A, const at::Tensor& d_scale_A);

}  // namespace conclave::ops
