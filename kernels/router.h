// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "device/status.h"

// Token choice in one pass over the logits: score function, selection bias, group limit, exact top-k, weights
// and what the balancing losses need. What the stages of `moe` do one after the other, in fp32.
namespace conclave::kernels {

struct RouterShape {
  int64_t tokens = 0, num_experts = 0, top_k = 0;
  bool sigmoid = false;   // the score function; else softmax over the experts
  bool normalise = true;  // the weights of a token sum to `scale`; else weight = scale * score
  float scale = 1.0f;
  // Group-limited selection: experts lie in num_groups equal groups of neighbours, of which a token keeps
  // topk_groups. 0: none. A group is as good as its best expert, or (group_top2) as its two best together,
  // for groups of two and more.
  int64_t num_groups = 0, topk_groups = 0;
  bool group_top2 = true;
};

// Without a bias the logits decide (a score may underflow, a logit does not) and groups are compared by
// logarithms; with one it is score + bias. A logit that is not finite is never chosen, has score 0 and counts
// in non_finite. With fewer than top_k others, the last entries of chosen are -1 and their weight is 0.
struct RouterForward {
  RouterShape shape = {};
  const float* logits = nullptr;  // [tokens, num_experts]
  const float* bias = nullptr;    // [num_experts]; null: none
  int32_t* chosen = nullptr;      // [tokens, top_k], best first
  float* weight = nullptr;        // [tokens, top_k]
  int32_t* counts = nullptr;      // [num_experts]: how often each was chosen
  float* score_sums = nullptr;    // [num_experts]: sum over tokens of the scores; null: not wanted
  float* z_sum = nullptr;         // [1]: sum over tokens of logsumexp(logits)^2; null: not wanted
  int32_t* non_finite = nullptr;  // [1]: logits that are not finite
};

// With an objective that holds sum_t,k d_weight * weight + sum_e d_score_sums * score_sums + d_z_sum * z_sum.
struct RouterBackward {
  RouterShape shape = {};
  const float* logits = nullptr;
  const int32_t* chosen = nullptr;
  const float* d_weight = nullptr;      // [tokens, top_k]
  const float* d_score_sums = nullptr;  // [num_experts]; null: none
  float d_z_sum = 0.0f;
  float* d_logits = nullptr;  // [tokens, num_experts]; 0 where the logit is not finite
};

// Plain-loop twins in double arithmetic.
void router_forward_ref(const RouterForward& router);
void router_backward_ref(const RouterBackward& router);

namespace cuda {

constexpr int64_t kMaxRouterExperts = 1024, kMaxRouterChoices = 32, kMaxRouterGroups = 32;

// Bytes that router_forward needs in `scratch`, which starts at a multiple of 4.
int64_t router_scratch_bytes(const RouterShape& shape);
Status router_forward(const RouterForward& router, void* scratch, Stream stream);
Status router_backward(const RouterBackward& router, Stream stream);

}  // namespace cuda

}  // namespace conclave::kernels
