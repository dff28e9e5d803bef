// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include <c10/core/ScalarType.h>

#include "conclave/nn/kv_cache.h"
#include "conclave/nn/module.h"
#include "conclave/ops/attention.h"

// Legend: B sequences, S tokens per sequence, D model width, F inner width, H heads, G key/value heads, P
// head width.
namespace conclave::nn {

// Parameters are fp32, or fp64 for proofs; fp32 ones take fp32 and bf16 inputs and answer in the type of the
// input (ops/product.h).

// y = x W^T, no bias. weight [out, in].
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, c10::ScalarType dtype, ParamRole role = ParamRole::kMatrix);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight;
};

class RmsNorm : public Module {
 public:
  RmsNorm(int64_t width, double eps, c10::ScalarType dtype);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight;

 private:
  double eps_;
};

// Dense SwiGLU feed-forward block: W2(silu(gate) * up) with gate beside up in one matrix.
class SwiGluMlp : public Module {
 public:
  SwiGluMlp(int64_t width, int64_t inner, c10::ScalarType dtype);
  at::Tensor forward(const at::Tensor& x);  // [..., D] -> [..., D]
  at::Tensor w13, w2;                       // [2F, D], [D, F]
};

// What attention needs to know of a batch; built once and shared by all layers.
struct AttentionInput {
  at::Tensor cos_BSP, sin_BSP;  // [B, 1, S, P / 2]
  ops::AttentionPattern pattern = {};
};

enum class QkNorm { kNone, kHead, kFull };

struct AttentionOptions {
  int64_t width = 256;
  int64_t num_heads = 4;
  int64_t num_key_value_heads = 4;
  int64_t head_dim = 64;
  QkNorm qk_norm = QkNorm::kNone;
  double norm_eps = 1e-6;
};

// Grouped-query attention (Ainslie et al., 2023) with rotary positions and optional norms of queries and
// keys, through scaled_dot_product_attention.
class Attention : public Module {
 public:
  Attention(const AttentionOptions& options, c10::ScalarType dtype);
  // With a cache, x holds the tokens that follow the cached ones; they are appended to it.
  at::Tensor run(const at::Tensor& x_BSD, const AttentionInput& input, KvCache* cache = nullptr);

 private:
  AttentionOptions options_;
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_, o_proj_;
  std::shared_ptr<RmsNorm> q_norm_, k_norm_;
};

struct AttentionShape {
  int64_t head_dim = 64;
  double rope_theta = 10000;
  c10::ScalarType dtype = c10::ScalarType::Float;   // of the angles: that of the parameters
  c10::ScalarType stored = c10::ScalarType::Float;  // of queries and keys
  c10::Device device = c10::DeviceType::CPU;
};

// Angles and pattern out of documents and positions: a token attends to tokens of its own document that do
// not come later (all of them when `causal` is false). document_BS, position_BS: [B, S] int64 on the host;
// document -1 is padding, which attends to itself only; the tokens of a document stand together.
AttentionInput attention_input(const at::Tensor& document_BS, const at::Tensor& position_BS, bool causal,
                               const AttentionShape& shape);

// The same for `count` tokens at positions `first`, first + 1, ... of one document whose earlier tokens are
// in a cache.
AttentionInput continued_attention_input(int64_t first, int64_t count, const AttentionShape& shape);

}  // namespace conclave::nn
