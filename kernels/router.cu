// SPDX-License-Identifier: Apache-2.0
// One warp a token at a time, its logits in registers: lane l holds experts l, l + 32, ... The logits are
// read once; the forward pass writes 8 bytes a choice and the backward pass the gradient of the logits.
#include "router.h"

#include "device/select.h"

namespace conclave::kernels::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTokensPerWarp = 8, kTokensPerBlock = kWarps * kTokensPerWarp;

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

// exp(2 values) summed, as a logarithm.
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

// What a block adds up of its tokens: [experts] counts and [experts] scores, then z and non-finite logits.
struct Partials {
  int32_t* counts;      // [blocks, num_experts]
  float* score_sums;    // [blocks, num_experts]
  float* z_sum;         // [blocks]
  int32_t* non_finite;  // [blocks]
};

int64_t num_blocks(const RouterShape& s) {
  return ceil_div(s.tokens, kTokensPerBlock);
}
Partials partials_in(void* scratch, const RouterShape& s) {
  const int64_t blocks = num_blocks(s);
  auto* counts = static_cast<int32_t*>(scratch);
  auto* score_sums = reinterpret_cast<float*>(counts + blocks * s.num_experts);
  float* z_sum = score_sums + blocks * s.num_experts;
  return {counts, score_sums, z_sum, reinterpret_cast<int32_t*>(z_sum + blocks)};
}

template <int V>
__global__ void __launch_bounds__(kThreads, 1) forward_kernel(RouterForward r, Partials partials) {
  const auto& s = r.shape;
  float* rows = dynamic_shared<float>();  // [kWarps, num_experts]
  int32_t* counts = reinterpret_cast<int32_t*>(rows + kWarps * s.num_experts);
  float* row = rows + warp_in_block() * s.num_experts;
  for (int e = static_cast<int>(threadIdx.x); e < s.num_experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  float score_sums[V] = {};
  float z_sum = 0;
  int non_finite = 0;
  const int64_t first = blockIdx.x * int64_t{kTokensPerBlock} + warp_in_block() * kTokensPerWarp;
  for (int64_t t = first; t < first + kTokensPerWarp && t < s.tokens; ++t) {
    const Scores<V> scores(s, r.logits + t * s.num_experts);
    const int chosen = choose(s, scores, r.bias, row);
    const float logit = logit_of(s, scores, chosen, row);
    const float weight = s.scale * weight_of(s, scores.lse, logit, chosen);
    if (lane() < s.top_k) {
      r.chosen[t * s.top_k + lane()] = chosen;
      r.weight[t * s.top_k + lane()] = weight;
      if (chosen >= 0) atomicAdd(&counts[chosen], 1);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) score_sums[i] += scores.score[i];
    z_sum += scores.lse * scores.lse;
    non_finite += scores.non_finite;
  }
  non_finite = warp_sum(non_finite);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (lane() + kWarp * i < s.num_experts) row[lane() + kWarp * i] = score_sums[i];
  }
  __syncthreads();
  for (int64_t e = threadIdx.x; e < s.num_experts; e += kThreads) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += rows[w * s.num_experts + e];
    partials.score_sums[blockIdx.x * s.num_experts + e] = sum;
    partials.counts[blockIdx.x * s.num_experts + e] = counts[e];
  }
  __shared__ float z_of[kWarps];
  __shared__ int32_t non_finite_of[kWarps];
  if (lane() == 0) {
    z_of[warp_in_block()] = z_sum;
    non_finite_of[warp_in_block()] = non_finite;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  float z = 0;
  int32_t bad = 0;
  for (int w = 0; w < kWarps; ++w) {
    z += z_of[w];
    bad += non_finite_of[w];
  }
  partials.z_sum[blockIdx.x] = z;
  partials.non_finite[blockIdx.x] = bad;
}

template <int V>
__global__ void __launch_bounds__(kThreads) backward_kernel(RouterBackward r) {
  const auto& s = r.shape;
  float* row = dynamic_shared<float>() + warp_in_block() * s.num_experts;
  const int64_t t = blockIdx.x * int64_t{kWarps} + warp_in_block();
  if (t >= s.tokens) return;
  const Scores<V> scores(s, r.logits + t * s.num_experts);
  const int chosen = lane() < s.top_k ? r.chosen[t * s.top_k + lane()] : -1;
  const float logit = logit_of(s, scores, chosen, row);
  const float d_weight = chosen >= 0 ? r.d_weight[t * s.top_k + lane()] : 0.0f;
  const float weight = weight_of(s, scores.lse, logit, chosen);
  const float pull = warp_sum(weight * d_weight);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (lane() + kWarp * i < s.num_experts) row[lane() + kWarp * i] = 0.0f;
  }
  __syncwarp();
  if (chosen >= 0) {
    const float slope = s.sigmoid ? 1.0f / (1.0f + expf(logit)) : 1.0f;  // 1 - score
    row[chosen] = s.scale * (s.normalise ? weight * (d_weight - pull) * slope : d_weight);
  }
  __syncwarp();
  float d_score[V], d_logit[V];
  float shared = 0;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int e = lane() + kWarp * i;
    const bool here = e < s.num_experts;
    const float chosen_part = here ? row[e] : 0.0f;
    d_score[i] = here && r.d_score_sums ? r.d_score_sums[e] : 0.0f;
    if (!s.normalise) d_score[i] += chosen_part;
    d_logit[i] = s.normalise ? chosen_part : 0.0f;
    shared += scores.score[i] * d_score[i];
  }
  shared = warp_sum(shared);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int e = lane() + kWarp * i;
    if (e >= s.num_experts) continue;
    const float score = scores.score[i];
    d_logit[i] += s.sigmoid ? d_score[i] * score * (1.0f - score) : score * (d_score[i] - shared);
    d_logit[i] += 2.0f * r.d_z_sum * scores.lse * scores.softmax(i);
    r.d_logits[t * s.num_experts + e] = scores.masked >> i & 1u ? 0.0f : d_logit[i];
  }
}

bool is_possible(const RouterShape& s) {
  const bool groups =
      s.num_groups == 0 || (s.num_groups <= kMaxRouterGroups && s.num_experts % s.num_groups == 0 &&
                            s.num_experts / s.num_groups >= (s.group_top2 ? 2 : 1) && s.topk_groups >= 1 &&
                            s.topk_groups <= s.num_groups);
  return s.num_experts >= 1 && s.num_experts <= kMaxRouterExperts && s.top_k >= 1 &&
         s.top_k <= kMaxRouterChoices && s.top_k <= s.num_experts && groups;
}

}  // namespace

int64_t router_scratch_bytes(const RouterShape& s) {
  return num_blocks(s) * (2 * s.num_experts + 2) * static_cast<int64_t>(sizeof(float));
}

Status router_forward(const RouterForward& r, void* scratch, Stream stream) {
  if (!is_possible(r.shape)) return Status::kInvalid;
  const auto partials = partials_in(scratch, r.shape);
  const int64_t blocks = num_blocks(r.shape), experts = r.shape.num_experts;
  const Grid grid{.blocks = blocks,
                  .threads = kThreads,
                  .shared_bytes = static_cast<size_t>((kWarps + 1) * experts) * sizeof(float),
                  .stream = stream};
  auto status = with_values_per_lane(experts, [&]<int V>(std::integral_constant<int, V>) {
    return launch(grid, forward_kernel<V>, r, partials);
  });
  const auto then = [&](auto* parts, auto* out, int64_t width) {
    if (status == Status::kOk && out) status = launch_sum_partials(parts, blocks, out, width, false, stream);
  };
  then(partials.counts, r.counts, experts);
  then(partials.score_sums, r.score_sums, experts);
  then(partials.z_sum, r.z_sum, 1);
  then(partials.non_finite, r.non_finite, 1);
  return status;
}

Status router_backward(const RouterBackward& r, Stream stream) {
  if (!is_possible(r.shape)) return Status::kInvalid;
  const Grid grid{.blocks = ceil_div(r.shape.tokens, kWarps),
                  .threads = kThreads,
                  .shared_bytes = static_cast<size_t>(kWarps * r.shape.num_experts) * sizeof(float),
                  .stream = stream};
  return with_values_per_lane(r.shape.num_experts, [&]<int V>(std::integral_constant<int, V>) {
    return launch(grid, backward_kernel<V>, r);
  });
}

}  // namespace conclave::kernels::cuda
