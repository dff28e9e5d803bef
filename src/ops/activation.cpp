// SPDX-License-Identifier: Apache-2.0
#include "activation.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/ops/expert_mlp.h"
#include "storage.h"
#include "swiglu.h"

namespace conclave::ops {

namespace {

constexpr int64_t kActivationGrain = 64;

// body(H{}, A{}): pre-activations as stored, the rest in `dtype`.
template <class Body>
void dispatch_activation(const at::Tensor& h, c10::ScalarType dtype, Body body) {
  dispatch_storage(h, "swiglu", [&](auto stored) {
    using H = decltype(stored);
    if (h.scalar_type() == dtype) return body(H{}, H{});
    if constexpr (std::is_same_v<H, kernels::bfloat16>) {
      if (dtype == at::kFloat) return body(H{}, float{});
    }
    throw Error(
        fmt::format("swiglu: no path from {} to {}", c10::toString(h.scalar_type()), c10::toString(dtype)));
  });
}

struct SwiGlu : public torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    return activate(gate_up, gate_up.scalar_type());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    return {activate_backward(ctx->get_saved_variables()[0], grads[0].contiguous(), {}, {}).d_h_A2F};
  }
};

}  // namespace

at::Tensor activate(const at::Tensor& h_A2F, c10::ScalarType dtype) {
  const int64_t rows = h_A2F.size(0), width = h_A2F.size(1) / 2;
  auto act = at::empty({rows, width}, h_A2F.options().dtype(dtype));
  dispatch_activation(h_A2F, dtype, [&](auto h_type, auto a_type) {
    using H = decltype(h_type);
    using A = decltype(a_type);
    at::parallel_for(0, rows, kActivationGrain, [&](int64_t begin, int64_t end) {
      kernels::swiglu_forward<H, A>(const_data<H>(h_A2F), mutable_data<A>(act), width, begin, end);
    });
  });
  return act;
}

ActivationGradient activate_backward(const at::Tensor& h_A2F, const at::Tensor& d_act_AF,
                                     const at::Tensor& scale_A, const at::Tensor& d_scale_A) {
  const int64_t rows = h_A2F.size(0), width = h_A2F.size(1) / 2;
  ActivationGradient g{at::empty({rows, 2 * width}, d_act_AF.options()), at::empty_like(d_act_AF)};
  dispatch_activation(h_A2F, d_act_AF.scalar_type(), [&](auto h_type, auto a_type) {
    using H = decltype(h_type);
    using A = decltype(a_type);
    using W = kernels::wide_t<A>;
    const W* scale = scale_A.defined() ? const_data<W>(scale_A) : nullptr;
    W* d_scale = d_scale_A.defined() ? mutable_data<W>(d_scale_A) : nullptr;
    at::parallel_for(0, rows, kActivationGrain, [&](int64_t begin, int64_t end) {
      kernels::swiglu_backward<H, A>(const_data<H>(h_A2F), const_data<A>(d_act_AF), scale,
                                     mutable_data<A>(g.d_h_A2F), mutable_data<A>(g.scaled_act_AF), d_scale,
                                     width, begin, end);
    });
  });
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
