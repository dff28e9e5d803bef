// SPDX-License-Identifier: Apache-2.0
#include "conclave/nn/layers.h"

#include <cmath>
#include <tuple>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "conclave/core/error.h"
#include "conclave/ops/expert_mlp.h"
#include "conclave/ops/functions.h"
#include "conclave/ops/product.h"

namespace conclave::nn {

Linear::Linear(int64_t in, int64_t out, c10::ScalarType dtype, ParamRole role) {
  weight = register_tagged("weight", at::empty({out, in}, dtype), {.role = role});
}
at::Tensor Linear::forward(const at::Tensor& x) {
  return ops::linear(x, weight);
}

RmsNorm::RmsNorm(int64_t width, double eps, c10::ScalarType dtype) : eps_(eps) {
  weight = register_tagged("weight", at::ones({width}, dtype), {.role = ParamRole::kNorm});
}
at::Tensor RmsNorm::forward(const at::Tensor& x) {
  return ops::rms_norm(x, weight, eps_);
}

SwiGluMlp::SwiGluMlp(int64_t width, int64_t inner, c10::ScalarType dtype) {
  w13 = register_tagged(
      "w13", at::empty({2 * inner, width}, dtype),
      {.role = ParamRole::kMatrix,
       .parts = {{.logical_name = "gate_proj.weight", .dim = 0, .begin = 0, .size = inner},
                 {.logical_name = "up_proj.weight", .dim = 0, .begin = inner, .size = inner}}});
  w2 =
      register_tagged("w2", at::empty({width, inner}, dtype),
                      {.role = ParamRole::kMatrix,
                       .parts = {{.logical_name = "down_proj.weight", .dim = 0, .begin = 0, .size = width}}});
}
at::Tensor SwiGluMlp::forward(const at::Tensor& x) {
  return ops::linear(ops::swiglu(ops::linear(x, w13)), w2);
}

Attention::Attention(const AttentionOptions& o, c10::ScalarType dtype) : options_(o) {
  CONCLAVE_CHECK(o.num_heads % o.num_key_value_heads == 0,
                 "num_attention_heads must be a multiple of num_key_value_heads");
  const int64_t q_width = o.num_heads * o.head_dim, kv_width = o.num_key_value_heads * o.head_dim;
  q_proj_ = register_module("q_proj", std::make_shared<Linear>(o.width, q_width, dtype));
  k_proj_ = register_module("k_proj", std::make_shared<Linear>(o.width, kv_width, dtype));
  v_proj_ = register_module("v_proj", std::make_shared<Linear>(o.width, kv_width, dtype));
  o_proj_ = register_module("o_proj", std::make_shared<Linear>(q_width, o.width, dtype));
  if (o.qk_norm != QkNorm::kNone) {
    const bool per_head = o.qk_norm == QkNorm::kHead;
    q_norm_ = register_module("q_norm",
                              std::make_shared<RmsNorm>(per_head ? o.head_dim : q_width, o.norm_eps, dtype));
    k_norm_ = register_module("k_norm",
                              std::make_shared<RmsNorm>(per_head ? o.head_dim : kv_width, o.norm_eps, dtype));
  }
}

at::Tensor Attention::run(const at::Tensor& x_BSD, const AttentionInput& input, KvCache* cache) {
  const auto& o = options_;
  const int64_t batch = x_BSD.size(0), length = x_BSD.size(1);
  const auto project = [&](Linear& linear, RmsNorm* norm, int64_t heads) {
    auto y = linear.forward(x_BSD);
    if (norm && o.qk_norm == QkNorm::kFull) y = norm->forward(y);
    y = y.view({batch, length, heads, o.head_dim});
    if (norm && o.qk_norm == QkNorm::kHead) y = norm->forward(y);
    return y.transpose(1, 2);
  };
  const auto q = ops::rope(project(*q_proj_, q_norm_.get(), o.num_heads), input.cos_BSP, input.sin_BSP);
  auto k = ops::rope(project(*k_proj_, k_norm_.get(), o.num_key_value_heads), input.cos_BSP, input.sin_BSP);
  auto v = project(*v_proj_, nullptr, o.num_key_value_heads);
  if (cache) std::tie(k, v) = cache->append(k, v);
  std::optional<at::Tensor> mask;
  if (input.mask_BSS.defined()) mask = input.mask_BSS;
  // The softmax of the fused operator is fp32 in either type.
  const auto dtype = ops::product_dtype(x_BSD.scalar_type());
  const auto y = at::scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype), mask,
                                                  /*dropout_p=*/0.0, /*is_causal=*/!mask && input.causal,
                                                  /*scale=*/std::nullopt,
                                                  /*enable_gqa=*/o.num_heads != o.num_key_value_heads)
                     .to(x_BSD.scalar_type());
  return o_proj_->forward(y.transpose(1, 2).reshape({batch, length, o.num_heads * o.head_dim}));
}

namespace {

AttentionInput with_angles(const at::Tensor& position_BS, int64_t head_dim, double rope_theta,
                           c10::ScalarType dtype) {
  AttentionInput input;
  const auto exponent = at::arange(0, head_dim, 2, at::kDouble).div(static_cast<double>(head_dim));
  const auto frequency = at::pow(rope_theta, exponent.neg());
  const auto angle = position_BS.to(at::kDouble).unsqueeze(-1).mul(frequency).unsqueeze(1);
  input.cos_BSP = angle.cos().to(dtype);
  input.sin_BSP = angle.sin().to(dtype);
  return input;
}

}  // namespace

AttentionInput attention_input(const at::Tensor& document_BS, const at::Tensor& position_BS, int64_t head_dim,
                               double rope_theta, bool causal, c10::ScalarType dtype) {
  auto input = with_angles(position_BS, head_dim, rope_theta, dtype);
  input.causal = causal;
  const int64_t length = document_BS.size(1);
  const bool one_document_a_row = document_BS.eq(document_BS.select(1, 0).unsqueeze(1)).all().item<bool>();
  if (one_document_a_row) return input;
  auto mask = document_BS.unsqueeze(2).eq(document_BS.unsqueeze(1));
  if (causal) {
    const auto index = at::arange(length, at::kLong);
    mask = mask.logical_and(index.unsqueeze(1).ge(index.unsqueeze(0)));
  }
  input.mask_BSS = mask.unsqueeze(1);
  return input;
}

AttentionInput continued_attention_input(int64_t first, int64_t count, int64_t head_dim, double rope_theta,
                                         c10::ScalarType dtype) {
  const auto position = at::arange(first, first + count, at::kLong);
  auto input = with_angles(position.unsqueeze(0), head_dim, rope_theta, dtype);
  if (count == 1) {
    input.causal = false;  // the newest token looks at everything
  } else if (first > 0) {
    const auto key = at::arange(first + count, at::kLong);
    input.mask_BSS = position.unsqueeze(1).ge(key.unsqueeze(0)).view({1, 1, count, first + count});
  }
  return input;
}

}  // namespace conclave::nn
