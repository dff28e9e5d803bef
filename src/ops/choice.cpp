// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/choice.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/core/error.h"
#include "conclave/ops/kernel_table.h"

namespace conclave::ops {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HowHolder : public torch::CustomClassHolder {
  explicit HowHolder(const TokenChoice& h) : how(h) {}
  TokenChoice how;
};

at::Tensor contiguous(const at::Tensor& t) {
  return t.defined() ? t.contiguous() : t;
}

struct ChooseExperts : public torch::autograd::Function<ChooseExperts> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits_UE,
                               const std::optional<at::Tensor>& bias_E,
                               const std::optional<at::Tensor>& given_UK, const TokenChoice& how) {
    const auto logits = logits_UE.contiguous();
    const auto ints = logits.options().dtype(at::kInt);
    const RouterPass pass{.how = how,
                          .repeats = given_UK.has_value(),
                          .logits_UE = logits,
                          .bias_E = bias_E.value_or(at::Tensor()),
                          .chosen_UK = given_UK ? given_UK->clone(at::MemoryFormat::Contiguous)
                                                : at::empty({logits.size(0), how.top_k}, ints),
                          .weight_UK = at::empty({logits.size(0), how.top_k}, logits.options()),
                          .scores_UE = at::empty_like(logits),
                          .counts_E = at::empty({logits.size(1)}, ints),
                          .non_finite = at::empty({1}, ints)};
    kernels_of(logits, "choose_experts").router(pass);
    const auto counts_E = pass.counts_E.to(at::kLong), non_finite = pass.non_finite.to(at::kLong).squeeze(0);
    ctx->save_for_backward({logits, pass.chosen_UK});
    ctx->mark_non_differentiable({pass.chosen_UK, counts_E, non_finite});
    ctx->set_materialize_grads(false);
    ctx->saved_data["how"] = c10::IValue::make_capsule(c10::make_intrusive<HowHolder>(how));
    return {pass.weight_UK, pass.scores_UE, pass.chosen_UK, counts_E, non_finite};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto holder = c10::static_intrusive_pointer_cast<HowHolder>(ctx->saved_data["how"].toCapsule());
    const RouterGradient gradient{.how = holder->how,
                                  .logits_UE = saved[0],
                                  .chosen_UK = saved[1],
                                  .d_weight_UK = contiguous(grads[0]),
                                  .d_scores_UE = contiguous(grads[1]),
                                  .d_logits_UE = at::empty_like(saved[0])};
    kernels_of(saved[0], "choose_experts").router_backward(gradient);
    return {gradient.d_logits_UE, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool can_choose_experts(const at::Tensor& logits_UE, const TokenChoice& how) {
  return kernels_of(logits_UE, "choose_experts")
      .takes_router(how, logits_UE.size(1), logits_UE.scalar_type());
}

ChosenExperts choose_experts(const at::Tensor& logits_UE, const at::Tensor& bias_E, const TokenChoice& how,
                             const at::Tensor& given_UK) {
  CONCLAVE_CHECK(logits_UE.dim() == 2 &&
                     (!bias_E.defined() ||
                      (bias_E.scalar_type() == at::kFloat && bias_E.is_contiguous() &&
                       bias_E.numel() == logits_UE.size(1) && bias_E.device() == logits_UE.device())),
                 "choose_experts: expected logits [U, E], and a bias [E] in fp32 beside them");
  CONCLAVE_CHECK(
      !given_UK.defined() ||
          (given_UK.dim() == 2 && given_UK.size(0) == logits_UE.size(0) && given_UK.size(1) == how.top_k &&
           given_UK.scalar_type() == at::kInt && given_UK.device() == logits_UE.device()),
      "choose_experts: expected the choices of a pass before, int32 [U, K], beside the logits");
  CONCLAVE_CHECK(
      can_choose_experts(logits_UE, how),
      fmt::format("choose_experts: no kernel for {} of {} experts in {} on {}", how.top_k, logits_UE.size(1),
                  c10::toString(logits_UE.scalar_type()), logits_UE.device().str()));
  const auto optional = [](const at::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; };
  const auto out = ChooseExperts::apply(logits_UE, optional(bias_E), optional(given_UK), how);
  return {.chosen_UK = out[2],
          .weight_UK = out[0],
          .scores_UE = out[1],
          .counts_E = out[3],
          .non_finite = out[4]};
}

}  // namespace conclave::ops
