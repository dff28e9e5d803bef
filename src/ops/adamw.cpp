// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/adamw.h"

#include <cmath>

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include "adamw.h"
#include "conclave/core/error.h"

namespace conclave::ops {

void adamw_(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& exp_avg,
            const at::Tensor& exp_avg_sq, const AdamWArguments& a) {
  CONCLAVE_CHECK(param.is_contiguous() && grad.is_contiguous() && grad.sizes() == param.sizes() &&
                     grad.scalar_type() == param.scalar_type() &&
                     exp_avg.scalar_type() == param.scalar_type() && exp_avg.numel() == param.numel() &&
                     exp_avg_sq.numel() == param.numel(),
                 "adamw_: parameter, gradient and moments must be contiguous and of one shape and dtype");
  const kernels::AdamWStep step{.lr = a.lr,
                                .beta1 = a.beta1,
                                .beta2 = a.beta2,
                                .eps = a.eps,
                                .weight_decay = a.weight_decay,
                                .bias_correction1 = 1.0 - std::pow(a.beta1, static_cast<double>(a.step)),
                                .bias_correction2 = 1.0 - std::pow(a.beta2, static_cast<double>(a.step)),
                                .grad_scale = a.grad_scale};
  AT_DISPATCH_FLOATING_TYPES(param.scalar_type(), "adamw", [&] {
    at::parallel_for(0, param.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      kernels::adamw(param.data_ptr<scalar_t>(), grad.const_data_ptr<scalar_t>(),
                     exp_avg.data_ptr<scalar_t>(), exp_avg_sq.data_ptr<scalar_t>(), step, begin, end);
    });
  });
}

}  // namespace conclave::ops
