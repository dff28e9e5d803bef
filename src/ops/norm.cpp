// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/ops/functions.h"
#include "conclave/ops/kernel_table.h"
#include "storage.h"

namespace conclave::ops {

namespace {

struct RmsNorm : public torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_RD,
                            const at::Tensor& weight_D, double eps) {
    const auto x = x_RD.contiguous(), weight = weight_D.contiguous();
    auto out = at::empty_like(x);
    auto inv_R = at::empty({x.size(0)}, weight.options());
    kernels_of(x, "rms_norm").rms_norm_forward(x, weight, eps, out, inv_R);
    ctx->save_for_backward({x, weight, inv_R});
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &inv_R = saved[2];
    const auto d_out = grads[0].contiguous();
    const auto d_x = at::empty_like(x), d_weight = at::empty_like(weight);
    kernels_of(x, "rms_norm").rms_norm_backward(x, weight, inv_R, d_out, d_x, d_weight);
    return {d_x, d_weight, at::Tensor()};
  }
};

at::Tensor rotate(const at::Tensor& x_BSHP, const at::Tensor& cos, const at::Tensor& sin, int direction) {
  const auto x = x_BSHP.contiguous();
  auto out = at::empty_like(x);
  kernels_of(x, "rope").rope(x.flatten(0, 1), cos, sin, direction, out.flatten(0, 1));
  return out;
}

struct Rope : public torch::autograd::Function<Rope> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_BSHP,
                            const at::Tensor& cos, const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return rotate(x_BSHP, cos, sin, 1);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rotate(grads[0], saved[0], saved[1], -1), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  CONCLAVE_CHECK(
      weight.dim() == 1 && x.size(-1) == weight.size(0) &&
          weight.scalar_type() == wide_dtype(x.scalar_type()),
      fmt::format("rms_norm: x [..., {}] {} with a weight of {} {}", x.size(-1),
                  c10::toString(x.scalar_type()), weight.numel(), c10::toString(weight.scalar_type())));
  return RmsNorm::apply(x.reshape({-1, x.size(-1)}), weight, eps).view(x.sizes());
}

at::Tensor rope(const at::Tensor& x_BHSP, const at::Tensor& cos, const at::Tensor& sin) {
  CONCLAVE_CHECK(x_BHSP.dim() == 4 && x_BHSP.size(3) % 2 == 0 && cos.sizes() == sin.sizes() &&
                     cos.numel() == x_BHSP.size(0) * x_BHSP.size(2) * (x_BHSP.size(3) / 2) &&
                     cos.scalar_type() == wide_dtype(x_BHSP.scalar_type()),
                 "rope: expected x [B, H, S, P] and cos, sin [B, 1, S, P / 2] in fp32, or fp64 beside fp64");
  return Rope::apply(x_BHSP.transpose(1, 2), cos.contiguous(), sin.contiguous()).transpose(1, 2);
}

}  // namespace conclave::ops
