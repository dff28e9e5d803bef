// SPDX-License-Identifier: Apache-2.0
// The logits are read once, and their gradient, of all that the forward pass gave, is written once.
#include "router.h"

#include "device/scores.h"

namespace conclave::kernels::cuda {

namespace {

template <int V>
__global__ void __launch_bounds__(kThreads) backward_kernel(RouterBackward<float> r) {
  const auto& s = r.shape;
  float* row = dynamic_shared<float>() + warp_in_block() * s.num_experts;
  const int64_t t = blockIdx.x * int64_t{kWarps} + warp_in_block();
  if (t >= s.tokens) return;
  const Scores<V> scores(s, r.logits + t * s.num_experts);
  const int chosen = lane() < s.top_k ? r.chosen[t * s.top_k + lane()] : -1;
  const float logit = logit_of(s, scores, chosen, row);
  const float d_weight = chosen >= 0 && r.d_weight ? r.d_weight[t * s.top_k + lane()] : 0.0f;
  const float weight = weight_of(s, scores.lse, logit, chosen);
  const float pull = warp_sum(weight * d_weight);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (lane() + kWarp * i < s.num_experts) row[lane() + kWarp * i] = 0.0f;
  }
  __syncwarp();
  if (chosen >= 0) {
    const float slope = s.sigmoid ? 1.0f / (1.0f + expf(logit)) : 1.0f;  // 1 - score
    row[chosen] = static_cast<float>(s.scale) * (s.normalise ? weight * (d_weight - pull) * slope : d_weight);
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
    if (here && r.d_scores) d_score[i] += r.d_scores[t * s.num_experts + e];
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

}  // namespace

Status router_backward(const RouterBackward<float>& r, Stream stream) {
  if (!router_takes(r.shape)) return Status::kInvalid;
  const Grid grid{.blocks = ceil_div(r.shape.tokens, kWarps),
                  .threads = kThreads,
                  .shared_bytes = static_cast<size_t>(kWarps * r.shape.num_experts) * sizeof(float),
                  .stream = stream};
  return with_values_per_lane<kMaxRouterExperts>(
      r.shape.num_experts,
      [&]<int V>(std::integral_constant<int, V>) { return launch(grid, backward_kernel<V>, r); });
}

}  // namespace conclave::kernels::cuda
