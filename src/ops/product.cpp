// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/product.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/core/error.h"

namespace conclave::ops {

namespace {

bool has_bf16_products() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

struct MixedLinear : public torch::autograd::Function<MixedLinear> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_TD,
                            const at::Tensor& weight_OD) {
    const auto dtype = product_dtype(x_TD);
    ctx->save_for_backward({x_TD, weight_OD});
    return x_TD.to(dtype).mm(weight_OD.to(dtype).t()).to(x_TD.scalar_type());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x_TD = saved[0], &weight_OD = saved[1];
    const auto dtype = product_dtype(x_TD);
    const auto d_y = grads[0].to(dtype);
    return {d_y.mm(weight_OD.to(dtype)).to(x_TD.scalar_type()),
            d_y.t().mm(x_TD.to(dtype)).to(weight_OD.scalar_type())};
  }
};

}  // namespace

c10::ScalarType product_dtype(c10::DeviceType device, c10::ScalarType stored) {
  static const bool cpu_has_bf16 = has_bf16_products();
  const bool emulated = device == c10::DeviceType::CPU && !cpu_has_bf16;
  return stored == at::kBFloat16 && emulated ? at::kFloat : stored;
}

c10::ScalarType product_dtype(const at::Tensor& stored) {
  return product_dtype(stored.device().type(), stored.scalar_type());
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  if (x.scalar_type() == weight.scalar_type()) return at::linear(x, weight);
  CONCLAVE_CHECK(x.scalar_type() == at::kBFloat16 && weight.scalar_type() == at::kFloat,
                 fmt::format("linear: {} input with a {} weight", c10::toString(x.scalar_type()),
                             c10::toString(weight.scalar_type())));
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return MixedLinear::apply(x.reshape({-1, x.size(-1)}), weight).view(shape);
}

}  // namespace conclave::ops
