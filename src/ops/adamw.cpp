// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/adamw.h"

#include "conclave/core/error.h"
#include "conclave/ops/kernel_table.h"

namespace conclave::ops {

void adamw_(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& exp_avg,
            const at::Tensor& exp_avg_sq, const AdamWArguments& a) {
  CONCLAVE_CHECK(param.is_contiguous() && grad.is_contiguous() && grad.sizes() == param.sizes() &&
                     grad.scalar_type() == param.scalar_type() &&
                     exp_avg.scalar_type() == param.scalar_type() && exp_avg.numel() == param.numel() &&
                     exp_avg_sq.numel() == param.numel(),
                 "adamw_: parameter, gradient and moments must be contiguous and of one shape and dtype");
  kernels_of(param, "adamw_").adamw(param, grad, exp_avg, exp_avg_sq, a);
}

}  // namespace conclave::ops
