// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/core/error.h"

namespace conclave::ops {

namespace {

struct BodyHolder : public torch::CustomClassHolder {
  explicit BodyHolder(RecomputedBody b) : body(std::move(b)) {}
  RecomputedBody body;
};

struct Recompute : public torch::autograd::Function<Recompute> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                                                RecomputedBody body) {
    auto outputs = body(x, false);
    ctx->save_for_backward({x});
    ctx->set_materialize_grads(false);
    ctx->saved_data["body"] = c10::IValue::make_capsule(c10::make_intrusive<BodyHolder>(std::move(body)));
    return outputs;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto holder = c10::static_intrusive_pointer_cast<BodyHolder>(ctx->saved_data["body"].toCapsule());
    const auto x = ctx->get_saved_variables()[0].detach().set_requires_grad(true);
    torch::autograd::variable_list roots, root_grads;
    {
      const c10::AutoGradMode grad(true);
      const auto outputs = holder->body(x, true);
      CONCLAVE_CHECK(outputs.size() == grads.size(), "recompute: the second pass returned other tensors");
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (!grads[i].defined() || !outputs[i].requires_grad()) continue;
        roots.push_back(outputs[i]);
        root_grads.push_back(grads[i]);
      }
    }
    if (!roots.empty()) torch::autograd::backward(roots, root_grads);
    return {x.grad(), at::Tensor()};
  }
};

}  // namespace

std::vector<at::Tensor> recompute(const at::Tensor& x, RecomputedBody body) {
  CONCLAVE_CHECK(x.requires_grad(),
                 "recompute: the input requires no gradient, so the backward would not run");
  return Recompute::apply(x, std::move(body));
}

}  // namespace conclave::ops
