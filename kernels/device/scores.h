// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "../router.h"
#include "select.h"

// Parts of the router's kernels. A warp has one token at a time, its logits in registers: lane l holds the
// experts l, l + 32, ...
namespace conclave::kernels::cuda {

__device__ inline float minus_infinity() {
  return __uint_as_float(0xff800000u);
}
__device__ inline float log_sigmoid(float x) {
  return fminf(x, 0.0f) - log1pf(expf(-fabsf(x)));
}

// Scores of one token, expert `lane() + 32 i` in entry i.
template <int V>
struct Scores {
  float logit[V];       // masked and missing: minus infinity; a token without a finite logit has zeros
  float score[V];       // masked and missing: 0, but in such a token
  unsigned masked = 0;  // bit i; also of what is missing
  float lse = 0;
  int non_finite = 0;  // of this lane

  __device__ Scores(const RouterShape& s, const float* logits) {
    float most = minus_infinity();
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int e = lane() + kWarp * i;
      const float value = e < s.num_experts ? logits[e] : 0.0f;
      const bool finite = fabsf(value) <= 3.4028234e38f;
      const bool here = e < s.num_experts && finite;
      logit[i] = here ? value : minus_infinity();
      masked |= here ? 0u : 1u << i;
      non_finite += finite ? 0 : 1;
      most = fmaxf(most, logit[i]);
    }
    most = warp_max(most);
    if (most == minus_infinity()) {
      most = 0.0f;
#pragma unroll
      for (int i = 0; i < V; ++i) logit[i] = lane() + kWarp * i < s.num_experts ? 0.0f : logit[i];
    }
    float sum = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) sum += score[i] = expf(logit[i] - most);
    sum = warp_sum(sum);
    lse = most + logf(sum);
#pragma unroll
    for (int i = 0; i < V; ++i) score[i] = s.sigmoid ? 1.0f / (1.0f + expf(-logit[i])) : score[i] / sum;
  }

  // The softmax of the logits, whatever the score function.
  __device__ float softmax(int i) const {
    return expf(logit[i] - lse);
  }
};

// log(e^a + e^b).
__device__ inline float log_add(float a, float b) {
  const float most = fmaxf(a, b);
  return most == minus_infinity() ? most : most + log1pf(expf(fminf(a, b) - most));
}

// Which groups the token keeps, as bits. row: what groups are compared by, of all experts; the warp reads it.
__device__ inline unsigned kept_groups(const RouterShape& s, bool biased, const float* row) {
  const auto size = static_cast<int>(s.num_experts / s.num_groups);
  float first = minus_infinity(), second = minus_infinity();
  if (lane() < s.num_groups) {
    for (int i = 0; i < size; ++i) {
      const float value = row[lane() * size + i];
      second = value > first ? first : fmaxf(second, value);
      first = fmaxf(first, value);
    }
  }
  const float group = !s.group_top2 ? first : biased ? first + second : log_add(first, second);
  uint64_t key[1] = {lane() < s.num_groups ? key_of(group, lane()) : kNoKey};
  unsigned kept = 0;
  for (int64_t g = 0; g < s.topk_groups; ++g) {
    const int best = take_largest(key);
    if (best >= 0) kept |= 1u << best;
  }
  return kept;
}

// Whether a bias says anything; the same on all lanes.
__device__ inline bool is_biased(const RouterShape& s, const float* bias) {
  float most = 0;
  for (int64_t e = lane(); bias && e < s.num_experts; e += kWarp) most = fmaxf(most, fabsf(bias[e]));
  return warp_max(most) > 0;
}

// Lane k gets choice k. row: room for all experts.
template <int V>
__device__ int choose(const RouterShape& s, const Scores<V>& scores, const float* bias, float* row) {
  uint64_t keys[V];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int e = lane() + kWarp * i;
    const bool allowed = !(scores.masked >> i & 1u);
    const float by = allowed && bias ? scores.score[i] + bias[e] : scores.logit[i];
    keys[i] = allowed ? key_of(by, e) : kNoKey;
    if (s.num_groups == 0 || e >= s.num_experts) continue;
    row[e] = !allowed ? minus_infinity() : s.sigmoid && !bias ? log_sigmoid(by) : by;
  }
  if (s.num_groups > 0) {
    __syncwarp();
    const unsigned kept = kept_groups(s, bias != nullptr, row);
    __syncwarp();
    const auto size = static_cast<int>(s.num_experts / s.num_groups);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int e = lane() + kWarp * i;
      if (e < s.num_experts && !(kept >> (e / size) & 1u)) keys[i] = kNoKey;
    }
  }
  int mine = -1;
  for (int k = 0; k < s.top_k; ++k) {
    const int best = take_largest(keys);
    if (lane() == k) mine = best;
  }
  return mine;
}

// The logit of choice k on lane k, minus infinity where there is none.
template <int V>
__device__ float logit_of(const RouterShape& s, const Scores<V>& scores, int chosen, float* row) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int e = lane() + kWarp * i;
    if (e < s.num_experts) row[e] = scores.logit[i];
  }
  __syncwarp();
  const float logit = chosen >= 0 ? row[chosen] : minus_infinity();
  __syncwarp();
  return logit;
}

// Weight of choice k on lane k, before `scale`; 0 where there is none.
__device__ inline float weight_of(const RouterShape& s, float lse, float logit, int chosen) {
  if (!s.normalise) {
    if (chosen < 0) return 0.0f;
    return s.sigmoid ? 1.0f / (1.0f + expf(-logit)) : expf(logit - lse);
  }
  const float relative = chosen < 0 ? minus_infinity() : s.sigmoid ? log_sigmoid(logit) : logit;
  const float most = warp_max(relative);
  const float part = chosen < 0 ? 0.0f : expf(relative - most);
  const float sum = warp_sum(part);
  return chosen < 0 ? 0.0f : part / sum;
}

}  // namespace conclave::kernels::cuda
