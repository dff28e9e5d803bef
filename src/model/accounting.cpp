// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "conclave/model/options.h"

namespace conclave::model {

Accounting account(const ModelOptions& o, int64_t vocab_size, int64_t active_experts, int64_t seq_length,
                   int64_t bytes_per_value, std::optional<int64_t> router_parameters) {
  const int64_t width = o.hidden_size, head = o.head_width();
  const int64_t attention = width * head * (2 * o.num_attention_heads + 2 * o.num_key_value_heads);
  int64_t norms = width, matrices = 0, active_matrices = 0;
  for (int64_t layer = 0; layer < o.num_hidden_layers; ++layer) {
    norms += 2 * width;
    if (o.qk_norm == nn::QkNorm::kHead) norms += 2 * head;
    if (o.qk_norm == nn::QkNorm::kFull) norms += head * (o.num_attention_heads + o.num_key_value_heads);
    matrices += attention;
    active_matrices += attention;
    if (!o.is_moe_layer(layer)) {
      matrices += 3 * width * o.intermediate_size;
      active_matrices += 3 * width * o.intermediate_size;
      continue;
    }
    const int64_t expert = 3 * width * o.moe->moe_intermediate_size;
    const int64_t always = router_parameters.value_or(width * o.moe->num_experts) +
                           3 * width * o.moe->shared_width() + (o.moe->shared_expert_gate ? width : 0);
    matrices += always + expert * o.moe->num_experts;
    active_matrices += always + expert * active_experts;
  }
  const int64_t embedding = vocab_size * width;
  Accounting result;
  result.total_parameters = matrices + norms + embedding * (o.tie_word_embeddings ? 1 : 2);
  result.active_parameters = active_matrices + norms + embedding * (o.tie_word_embeddings ? 1 : 2);
  // Head counted as a matrix, look-up of the embedding not; scores and weighted values of attention over the
  // window.
  result.flops_per_token =
      6.0 * static_cast<double>(active_matrices + embedding) +
      12.0 * static_cast<double>(o.num_hidden_layers * o.num_attention_heads * head * seq_length);
  result.training_state_bytes = result.total_parameters * 4 * bytes_per_value;
  return result;
}

namespace {

// Values that one token of one layer leaves behind. A norm keeps its input and, for what follows, its output;
// the rotation of queries and keys keeps nothing.
int64_t saved_by_layer(const ModelOptions& o, int64_t layer, int64_t active_experts) {
  const int64_t q = o.num_attention_heads * o.head_width(), kv = o.num_key_value_heads * o.head_width();
  const int64_t norms = 2 * 2 * o.hidden_size;
  const int64_t before_rotation = o.qk_norm == nn::QkNorm::kNone ? 0 : 1;
  const int64_t attention = (before_rotation + 1) * (q + kv) + kv + 2 * q;
  if (!o.is_moe_layer(layer)) return norms + attention + 3 * o.intermediate_size;
  // Experts keep their pre-activations only; a router keeps about four values an expert.
  const int64_t routed = 2 * o.moe->moe_intermediate_size * active_experts + 4 * o.moe->num_experts;
  return norms + attention + routed + 3 * o.moe->shared_width();
}

}  // namespace

int64_t activation_bytes(const ModelOptions& o, int64_t vocab_size, int64_t active_experts,
                         int64_t micro_batch_size, int64_t seq_length, int64_t bytes_per_value) {
  constexpr int64_t kLossChunk = 1024;  // of ops::linear_cross_entropy
  const int64_t tokens = micro_batch_size * seq_length;
  int64_t per_token = 2 * o.hidden_size + o.hidden_size;  // last norm; gradient held by the loss
  for (int64_t layer = 0; layer < o.num_hidden_layers; ++layer) {
    per_token += saved_by_layer(o, layer, active_experts);
  }
  const int64_t logits = 2 * std::min(tokens, kLossChunk) * vocab_size;
  return bytes_per_value * (tokens * per_token + vocab_size * o.hidden_size + logits);
}

}  // namespace conclave::model
