// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "device/status.h"

// Token choice in one pass over the logits: score function, selection bias, group limit, exact top-k, weights
// and what the balancing losses need. What the stages of `moe` do one after the other. T: float, double.
namespace conclave::kernels {

struct RouterShape {
  int64_t tokens = 0, num_experts = 0, top_k = 0;
  bool sigmoid = false;   // the score function; else softmax over the experts
  bool normalise = true;  // the weights of a token sum to `scale`; else weight = scale * score
  double scale = 1.0;
  // Group-limited selection: experts lie in num_groups equal groups of neighbours, of which a token keeps
  // topk_groups. 0: none. A group is as good as its best expert, or (group_top2) as its two best together,
  // for groups of two and more.
  int64_t num_groups = 0, topk_groups = 0;
  bool group_top2 = true;
};

// Whether a shape means anything.
inline bool is_possible(const RouterShape& s) {
  const int64_t group = s.num_groups > 0 ? s.num_experts / s.num_groups : 0;
  const bool groups = s.num_groups == 0 || (s.num_groups > 0 && s.num_experts % s.num_groups == 0 &&
                                            group >= (s.group_top2 ? 2 : 1) && s.topk_groups >= 1 &&
                                            s.topk_groups <= s.num_groups);
  return s.num_experts >= 1 && s.top_k >= 1 && s.top_k <= s.num_experts && groups;
}

// Without a bias, or where it is zero for all experts, the logits decide (a score may underflow, a logit does
// not) and groups are compared by logarithms; with one it is score + bias. A logit that is not finite is
// never chosen, has score 0 and counts in non_finite. With fewer than top_k others, the last entries of
// chosen are -1 and their weight is 0.
template <class T>
struct RouterForward {
  RouterShape shape = {};
  const T* logits = nullptr;      // [tokens, num_experts]
  const float* bias = nullptr;    // [num_experts]; null: none
  int32_t* chosen = nullptr;      // [tokens, top_k], best first
  bool repeats = false;           // `chosen` is given, from a pass before
  T* weight = nullptr;            // [tokens, top_k]
  T* scores = nullptr;            // [tokens, num_experts]; null: not wanted
  int32_t* counts = nullptr;      // [num_experts]: how often each was chosen
  T* score_sums = nullptr;        // [num_experts]: sum over tokens of the scores; null: not wanted
  T* z_sum = nullptr;             // [1]: sum over tokens of logsumexp(logits)^2; null: not wanted
  int32_t* non_finite = nullptr;  // [1]: logits that are not finite
};

// With an objective that holds sum_t,k d_weight * weight + sum_t,e d_scores * scores + sum_e d_score_sums *
// score_sums + d_z_sum * z_sum.
template <class T>
struct RouterBackward {
  RouterShape shape = {};
  const T* logits = nullptr;
  const int32_t* chosen = nullptr;
  const T* d_weight = nullptr;      // [tokens, top_k]; null: none
  const T* d_scores = nullptr;      // [tokens, num_experts]; null: none
  const T* d_score_sums = nullptr;  // [num_experts]; null: none
  T d_z_sum = 0;
  T* d_logits = nullptr;  // [tokens, num_experts]; 0 where the logit is not finite
};

// Of the tokens [begin, end). Counts, sums and non_finite are added to what is there.
template <class T>
void router_forward(const RouterForward<T>& router, int64_t begin, int64_t end);
template <class T>
void router_backward(const RouterBackward<T>& router, int64_t begin, int64_t end);

// Plain-loop twins in double arithmetic, of all tokens.
template <class T>
void router_forward_ref(const RouterForward<T>& router);
template <class T>
void router_backward_ref(const RouterBackward<T>& router);

namespace cuda {

// More values of a token than these would not fit a warp's registers.
constexpr int64_t kMaxRouterExperts = 512, kMaxRouterChoices = 32, kMaxRouterGroups = 32;

// Whether the kernels take it.
bool router_takes(const RouterShape& shape);

// Bytes that router_forward needs in `scratch`, which starts at a multiple of 4.
int64_t router_scratch_bytes(const RouterShape& shape);
Status router_forward(const RouterForward<float>& router, void* scratch, Stream stream);
Status router_backward(const RouterBackward<float>& router, Stream stream);

}  // namespace cuda

}  // namespace conclave::kernels
