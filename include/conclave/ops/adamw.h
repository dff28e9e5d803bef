// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

namespace conclave::ops {

struct AdamWArguments {
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  int64_t step = 1;       // 1-based, for the bias corrections
  double grad_scale = 1;  // multiplies the gradient first
};

// Updates param, exp_avg and exp_avg_sq in place in one pass. All contiguous, same shape and dtype (float or
// double).
void adamw_(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& exp_avg,
            const at::Tensor& exp_avg_sq, const AdamWArguments& arguments);

}  // namespace conclave::ops
