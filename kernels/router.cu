// SPDX-License-Identifier: Apache-2.0
// The logits are read once; 8 bytes a choice are written, and the sums of a block.
#include "router.h"

#include "device/scores.h"

namespace conclave::kernels::cuda {

namespace {

constexpr int kTokensPerWarp = 8, kTokensPerBlock = kWarps * kTokensPerWarp;

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
__global__ void __launch_bounds__(kThreads, 1) forward_kernel(RouterForward<float> r, Partials partials) {
  const auto& s = r.shape;
  float* rows = dynamic_shared<float>();  // [kWarps, num_experts]
  int32_t* counts = reinterpret_cast<int32_t*>(rows + kWarps * s.num_experts);
  float* row = rows + warp_in_block() * s.num_experts;
  for (int e = static_cast<int>(threadIdx.x); e < s.num_experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  float score_sums[V] = {};
  float z_sum = 0;
  int non_finite = 0;
  const float* bias = is_biased(s, r.bias) ? r.bias : nullptr;
  const auto scale = static_cast<float>(s.scale);
  const int64_t first = blockIdx.x * int64_t{kTokensPerBlock} + warp_in_block() * kTokensPerWarp;
  for (int64_t t = first; t < first + kTokensPerWarp && t < s.tokens; ++t) {
    const Scores<V> scores(s, r.logits + t * s.num_experts);
    const int given = r.repeats && lane() < s.top_k ? r.chosen[t * s.top_k + lane()] : -1;
    const int chosen = r.repeats ? given : choose(s, scores, bias, row);
    const float logit = logit_of(s, scores, chosen, row);
    const float weight = scale * weight_of(s, scores.lse, logit, chosen);
    if (lane() < s.top_k) {
      r.chosen[t * s.top_k + lane()] = chosen;
      r.weight[t * s.top_k + lane()] = weight;
      if (chosen >= 0) atomicAdd(&counts[chosen], 1);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
      score_sums[i] += scores.score[i];
      const int e = lane() + kWarp * i;
      if (r.scores && e < s.num_experts) r.scores[t * s.num_experts + e] = scores.score[i];
    }
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

}  // namespace

bool router_takes(const RouterShape& s) {
  return is_possible(s) && s.num_experts <= kMaxRouterExperts && s.top_k <= kMaxRouterChoices &&
         s.num_groups <= kMaxRouterGroups;
}

int64_t router_scratch_bytes(const RouterShape& s) {
  return num_blocks(s) * (2 * s.num_experts + 2) * static_cast<int64_t>(sizeof(float));
}

Status router_forward(const RouterForward<float>& r, void* scratch, Stream stream) {
  if (!router_takes(r.shape)) return Status::kInvalid;
  const auto partials = partials_in(scratch, r.shape);
  const int64_t blocks = num_blocks(r.shape), experts = r.shape.num_experts;
  const Grid grid{.blocks = blocks,
                  .threads = kThreads,
                  .shared_bytes = static_cast<size_t>((kWarps + 1) * experts) * sizeof(float),
                  .stream = stream};
  auto status = with_values_per_lane<kMaxRouterExperts>(experts, [&]<int V>(std::integral_constant<int, V>) {
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

}  // namespace conclave::kernels::cuda
