// SPDX-License-Identifier: Apache-2.0
#include "conclave/nn/layers.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/tensor.h>

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
  const auto y = ops::attention(q, k, v, input.pattern);
  return o_proj_->forward(y.reshape({batch, length, o.num_heads * o.head_dim}));
}

namespace {

AttentionInput with_angles(const at::Tensor& position_BS, const AttentionShape& shape) {
  AttentionInput input;
  const auto wide = at::TensorOptions(at::kDouble).device(shape.device);
  const auto exponent = at::arange(0, shape.head_dim, 2, wide).div(static_cast<double>(shape.head_dim));
  const auto frequency = at::pow(shape.rope_theta, exponent.neg());
  const auto angle = position_BS.to(wide).unsqueeze(-1).mul(frequency).unsqueeze(1);
  input.cos_BSP = angle.cos().to(shape.dtype);
  input.sin_BSP = angle.sin().to(shape.dtype);
  return input;
}

// Runs of equal documents inside the sequences.
void cut_into_ranges(const at::Tensor& document_BS, ops::AttentionPattern& pattern) {
  const auto documents = document_BS.contiguous();
  const auto* document = documents.const_data_ptr<int64_t>();
  const int64_t length = document_BS.size(1), num_tokens = document_BS.numel();
  std::vector<int32_t> starts;
  for (int64_t t = 0; t < num_tokens; ++t) {
    if (t % length == 0 || document[t] != document[t - 1]) starts.push_back(static_cast<int32_t>(t));
  }
  starts.push_back(static_cast<int32_t>(num_tokens));
  for (size_t r = 0; r + 1 < starts.size(); ++r)
    pattern.longest_range = std::max<int64_t>(pattern.longest_range, starts[r + 1] - starts[r]);
  pattern.range_starts_R1 = at::tensor(starts, at::kInt);
}

}  // namespace

AttentionInput attention_input(const at::Tensor& document_BS, const at::Tensor& position_BS, bool causal,
                               const AttentionShape& shape) {
  auto input = with_angles(position_BS, shape);
  auto& pattern = input.pattern;
  pattern.causal = causal;
  const bool one_document_a_row = document_BS.eq(document_BS.select(1, 0).unsqueeze(1)).all().item<bool>();
  if (one_document_a_row) return input;
  if (ops::takes_ranges(shape.device.type(), shape.stored, shape.head_dim)) {
    cut_into_ranges(document_BS, pattern);
    pattern.range_starts_R1 = pattern.range_starts_R1.to(shape.device);
    return input;
  }
  const auto document = document_BS.to(shape.device);
  auto mask = document.unsqueeze(2).eq(document.unsqueeze(1));
  if (causal) {
    const auto index = at::arange(document.size(1), document.options());
    mask = mask.logical_and(index.unsqueeze(1).ge(index.unsqueeze(0)));
  }
  pattern.mask_BSS = mask.unsqueeze(1);
  return input;
}

AttentionInput continued_attention_input(int64_t first, int64_t count, const AttentionShape& shape) {
  const auto position = at::arange(first, first + count, at::TensorOptions(at::kLong).device(shape.device));
  auto input = with_angles(position.unsqueeze(0), shape);
  if (count == 1) {
    input.pattern.causal = false;  // the newest token looks at everything
  } else if (first > 0) {
    const auto key = at::arange(first + count, position.options());
    input.pattern.mask_BSS = position.unsqueeze(1).ge(key.unsqueeze(0)).view({1, 1, count, first + count});
  }
  return input;
}

}  // namespace conclave::nn
