// SPDX-License-Identifier: Apache-2.0
#include "activation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/core/error.h"
#include "conclave/ops/expert_mlp.h"
#include "conclave/ops/kernel_table.h"

namespace conclave::ops {

namespace {

struct SwiGlu : public torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    return activate(gate_up, {}, gate_up.scalar_type());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    return {activate_backward(ctx->get_saved_variables()[0], grads[0].contiguous(), {}, {}).d_h_A2F};
  }
};

}  // namespace

at::Tensor activate(const at::Tensor& h_A2F, const at::Tensor& scale_A, c10::ScalarType dtype) {
  auto act = at::empty({h_A2F.size(0), h_A2F.size(1) / 2}, h_A2F.options().dtype(dtype));
  kernels_of(h_A2F, "swiglu").swiglu_forward(h_A2F, scale_A, act);
  return act;
}

ActivationGradient activate_backward(const at::Tensor& h_A2F, const at::Tensor& d_act_AF,
                                     const at::Tensor& scale_A, const at::Tensor& d_scale_A) {
  ActivationGradient g{at::empty(h_A2F.sizes(), d_act_AF.options()), at::empty_like(d_act_AF)};
  kernels_of(h_A2F, "swiglu")
      .swiglu_backward(h_A2F, d_act_AF, scale_A, g.d_h_A2F, g.scaled_act_AF, d_scale_A);
  return g;
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  CONCLAVE_CHECK(gate_up.size(-1) % 2 == 0,
                 "swiglu: the last dimension holds gate and up, so it must be even");
  auto shape = gate_up.sizes().vec();
  shape.back() /= 2;
  return SwiGlu::apply(gate_up.reshape({-1, gate_up.size(-1)}).contiguous()).view(shape);
}

}  // namespace conclave::ops
