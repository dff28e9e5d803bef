// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/functions.h"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/core/error.h"
#include "conclave/ops/kernel_table.h"
#include "conclave/ops/product.h"

namespace conclave::ops {

namespace {

struct LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_TD,
                                                const at::Tensor& weight_VD, const at::Tensor& target_T,
                                                int64_t chunk, bool with_gradient) {
    const int64_t num_tokens = x_TD.size(0);
    const auto dtype = product_dtype(x_TD);
    const auto wide =
        weight_VD.options();  // logits, losses, gradient of the weight: fp32, or fp64 in fp64 models
    const auto weight = weight_VD.to(dtype);
    auto d_x = at::empty_like(x_TD);
    auto d_w = weight_VD.requires_grad() ? at::zeros_like(weight_VD) : at::Tensor();
    auto loss_T = at::zeros({num_tokens}, wide);
    for (int64_t first = 0; first < num_tokens; first += chunk) {
      const int64_t count = std::min(chunk, num_tokens - first);
      const auto x = x_TD.narrow(0, first, count).to(dtype);
      const auto target = target_T.narrow(0, first, count);
      const auto has_target = target.ge(0).to(wide.dtype());
      const auto safe_target = target.clamp_min(0).unsqueeze(1);
      auto log_p = x.mm(weight.t()).to(wide.dtype()).log_softmax(-1);
      loss_T.narrow(0, first, count).copy_(log_p.gather(1, safe_target).squeeze(1).neg().mul(has_target));
      if (!with_gradient) continue;
      auto d_logits = log_p.exp_();  // softmax - onehot, only where there is a target
      d_logits.scatter_add_(1, safe_target, at::zeros_like(safe_target, wide).sub(1));
      d_logits.mul_(has_target.unsqueeze(1));
      const auto d = d_logits.to(dtype);
      d_x.narrow(0, first, count).copy_(d.mm(weight));
      if (!d_w.defined()) continue;
      if (dtype == weight_VD.scalar_type()) {
        d_w.addmm_(d.t(), x);
      } else {
        d_w.add_(d.t().mm(x));
      }
    }
    if (with_gradient) ctx->save_for_backward({d_x, d_w});
    ctx->mark_non_differentiable({loss_T});
    return {loss_T.sum(), loss_T};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto d_w = saved[1].defined() ? saved[1].mul(grads[0]) : at::Tensor();  // undefined: frozen
    return {saved[0].mul(grads[0].to(saved[0].scalar_type())), d_w, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct ValuesOfRows : public torch::autograd::Function<ValuesOfRows> {
  static at::Tensor taken(const at::Tensor& values, const at::Tensor& index) {
    if (values.numel() == 0) return at::zeros(index.sizes(), values.options());
    return values.index_select(0, index.clamp_min(0)).masked_fill_(index.lt(0), 0);
  }
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& values_N,
                            const at::Tensor& pair_of_row_A, const at::Tensor& row_of_pair_N) {
    ctx->save_for_backward({row_of_pair_N});
    return taken(values_N, pair_of_row_A);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    return {taken(grads[0], ctx->get_saved_variables()[0]), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

void check_targets(const at::Tensor& target_T, int64_t vocab_size) {
  if (target_T.numel() == 0) return;
  const auto largest = target_T.max().item<int64_t>();
  CONCLAVE_CHECK(
      largest < vocab_size,
      fmt::format("linear_cross_entropy: target {} is outside the vocabulary of {}", largest, vocab_size));
}

CrossEntropy linear_cross_entropy(const at::Tensor& x_TD, const at::Tensor& weight_VD,
                                  const at::Tensor& target_T, int64_t chunk) {
  CONCLAVE_CHECK(x_TD.dim() == 2 && weight_VD.dim() == 2 && x_TD.size(1) == weight_VD.size(1) &&
                     target_T.dim() == 1 && target_T.size(0) == x_TD.size(0),
                 "linear_cross_entropy: expected x [T, D], weight [V, D], target [T]");
  if (target_T.is_cpu()) check_targets(target_T, weight_VD.size(0));
  const bool with_gradient =
      c10::GradMode::is_enabled() && (x_TD.requires_grad() || weight_VD.requires_grad());
  auto out = LinearCrossEntropy::apply(x_TD, weight_VD, target_T, chunk, with_gradient);
  return {out[0], out[1]};
}

at::Tensor select_top_k(const at::Tensor& scores_UE, int64_t k) {
  const auto scores = scores_UE.detach().contiguous();
  const int64_t num_experts = scores.size(1);
  CONCLAVE_CHECK(k >= 1 && k <= num_experts,
                 fmt::format("select_top_k: k = {} of {} experts", k, num_experts));
  auto chosen = at::empty({scores.size(0), k}, scores.options().dtype(at::kInt));
  kernels_of(scores, "select_top_k").select_top_k(scores, chosen);
  return chosen;
}

SortedPairs sort_pairs_by_expert(const at::Tensor& expert_N, const at::Tensor& kept_N, int64_t num_experts) {
  CONCLAVE_CHECK(expert_N.numel() < INT32_MAX,
                 "sort_pairs_by_expert: more than 2^31 pairs in one micro-batch");
  return kernels_of(expert_N, "sort_pairs_by_expert").sort_pairs(expert_N, kept_N, num_experts);
}

at::Tensor count_values(const at::Tensor& values_N, int64_t num_values) {
  const auto counted_N = values_N.ge(0).to(at::kLong);
  return at::zeros({num_values}, counted_N.options()).index_add_(0, values_N.clamp_min(0), counted_N);
}

at::Tensor values_of_rows(const at::Tensor& values_N, const at::Tensor& pair_of_row_A,
                          const at::Tensor& row_of_pair_N) {
  return ValuesOfRows::apply(values_N, pair_of_row_A, row_of_pair_N);
}

}  // namespace conclave::ops
