// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/accounting.h"

#include <algorithm>

#include "conclave/ops/product.h"

namespace conclave::model {

Accounting account(const ModelOptions& o, int64_t vocab_size, int64_t active_experts, int64_t seq_length,
                   int64_t bytes_per_value, std::optional<int64_t> router_parameters,
                   const RankShare& share) {
  const int64_t width = o.hidden_size, head = o.head_width();
  const int64_t attention = width * head * (2 * o.num_attention_heads + 2 * o.num_key_value_heads);
  int64_t norms = width, matrices = 0, active_matrices = 0, experts = 0;
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
    experts += expert * o.moe->num_experts;
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
  const int64_t held = result.total_parameters - experts + experts / share.expert_ranks;
  const int64_t updated = share.shared_moments ? result.total_parameters / share.ranks : held;
  result.training_state_bytes = 2 * (held + updated) * bytes_per_value;
  return result;
}

namespace {

// Bytes that one token of one layer leaves behind.
struct SavedByLayer {
  int64_t attention = 0;
  int64_t feed_forward = 0;  // without routed experts
  int64_t by_expert = 0;
  int64_t arrived = 0;  // copies of inputs that came from other ranks, or went there
};

int64_t bytes_of(c10::ScalarType dtype) {
  return static_cast<int64_t>(c10::elementSize(dtype));
}

// A norm keeps its input and, for what follows, its output; the rotation of queries and keys keeps nothing.
// What attention itself keeps has the type in which the device multiplies.
SavedByLayer saved_by_layer(const ModelOptions& o, int64_t layer, const MicroBatch& m) {
  const auto activations = m.activations;
  const int64_t q = o.num_attention_heads * o.head_width(), kv = o.num_key_value_heads * o.head_width();
  const int64_t value = bytes_of(activations), wide = std::max<int64_t>(4, value);
  const int64_t norm = value * 2 * o.hidden_size;
  const int64_t before_rotation = o.qk_norm == nn::QkNorm::kNone ? 0 : q + kv;
  SavedByLayer saved{.attention = norm + value * (before_rotation + q) +
                                  bytes_of(ops::product_dtype(m.device, activations)) * 2 * (q + kv),
                     .feed_forward = norm};
  if (!o.is_moe_layer(layer)) {
    saved.feed_forward += value * 3 * o.intermediate_size;
    return saved;
  }
  // The shared experts' output waits for that of the routed ones.
  if (const int64_t shared = o.moe->shared_width(); shared > 0)
    saved.feed_forward += value * (3 * shared + o.hidden_size);
  // A router keeps about four values an expert, and its input where that had to be widened.
  saved.feed_forward += wide * 4 * o.moe->num_experts + (value < wide ? wide * o.hidden_size : 0);
  // Experts keep their pre-activations only.
  saved.by_expert = value * 2 * o.moe->moe_intermediate_size;
  if (m.share.expert_ranks > 1) {
    saved.arrived = value * o.hidden_size * (m.share.gather_tokens ? m.share.expert_ranks : m.active_experts);
  }
  return saved;
}

// What the backward pass of a layer's experts has at hand where all of them are multiplied at once: inputs,
// gradients and activations of all rows, and in bf16 copies of the weights with their gradients.
int64_t experts_at_once(const ModelOptions& o, const MicroBatch& m, int64_t tokens) {
  if (m.device == c10::DeviceType::CPU || !o.moe) return 0;
  const int64_t value = bytes_of(m.activations), inner = o.moe->moe_intermediate_size;
  const int64_t rows = tokens * m.active_experts * value * (3 * o.hidden_size + 4 * inner);
  const int64_t here = o.moe->num_experts / m.share.expert_ranks;
  return rows + (value < 4 ? value * here * 5 * o.hidden_size * inner : 0);
}

// What a recorded layer has to itself: the scratch of its backward pass, which layers that run share, the
// gradients of its weights once more, and what goes in and comes out.
int64_t recorded_bytes(const ModelOptions& o, const MicroBatch& m, int64_t tokens) {
  if (m.device == c10::DeviceType::CPU || !o.moe || !o.moe->cuda_graph) return 0;
  const int64_t value = bytes_of(m.activations), wide = std::max<int64_t>(4, value);
  const int64_t inner = o.moe->num_experts * o.moe->moe_intermediate_size + o.moe->shared_width();
  int64_t layers = 0;
  for (int64_t layer = 0; layer < o.num_hidden_layers; ++layer) layers += o.is_moe_layer(layer) ? 1 : 0;
  return std::max<int64_t>(layers - 1, 0) * experts_at_once(o, m, tokens) +
         layers * (wide * 3 * o.hidden_size * inner + tokens * value * 4 * o.hidden_size);
}

}  // namespace

int64_t activation_bytes(const ModelOptions& o, int64_t vocab_size, const MicroBatch& m) {
  constexpr int64_t kLossChunk = 1024;  // of ops::linear_cross_entropy
  const int64_t tokens = m.size * m.seq_length, value = bytes_of(m.activations);
  const int64_t wide = std::max<int64_t>(4, value), input = value * o.hidden_size;
  int64_t per_token = 3 * input;  // last norm; gradient held by the loss
  int64_t recomputed = 0;         // the largest block that comes back
  for (int64_t layer = 0; layer < o.num_hidden_layers; ++layer) {
    const auto saved = saved_by_layer(o, layer, m);
    const int64_t feed_forward = saved.feed_forward + saved.by_expert * m.active_experts + saved.arrived;
    switch (m.recompute) {
      case Recompute::kNone:
        per_token += saved.attention + feed_forward;
        break;
      case Recompute::kSelective:
        per_token += saved.attention + input;
        recomputed = std::max(recomputed, feed_forward);
        break;
      case Recompute::kFull:
        per_token += input;
        recomputed = std::max(recomputed, saved.attention + feed_forward);
        break;
    }
  }
  const int64_t logits = 2 * std::min(tokens, kLossChunk) * vocab_size;
  // The loss's chunk is gone when the layers' backward begins.
  const int64_t loss = wide * logits, experts = experts_at_once(o, m, tokens);
  return tokens * (per_token + recomputed) + wide * vocab_size * o.hidden_size + std::max(loss, experts) +
         recorded_bytes(o, m, tokens);
}

}  // namespace conclave::model
