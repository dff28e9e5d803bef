// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

// Functions on tensors with a backward, defined by their ATen composition.
// Legend: B sequences, S tokens per sequence, T = B * S, D model width, V vocabulary, H heads, P head width.
namespace conclave::ops {

// x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang and Sennrich, 2019); statistics in fp32
// or wider.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// Rotary position embedding (Su et al., 2021) in the half-split layout of Hugging Face: x [B, H, S, P], cos
// and sin [B, 1, S, P / 2]; returns the shape of x.
at::Tensor rope(const at::Tensor& x_BHSP, const at::Tensor& cos, const at::Tensor& sin);

// Per-token cross entropy of the linear head, computed in chunks of tokens so that [T, V] logits never exist
// whole.
//   x_TD, weight_VD: same floating dtype; target_T int64, -1 for "no target"; on a device, for which the host
//   would have to wait, nobody looks whether they are tokens: check_targets() does before they go there.
// Returns {sum of the losses in nats over targets (0-dim), per-token loss [T] without gradient}. The
// gradients are computed in the forward pass, chunk by chunk, and saved: TD + VD values.
struct CrossEntropy {
  at::Tensor sum;
  at::Tensor per_token_T;
};
CrossEntropy linear_cross_entropy(const at::Tensor& x_TD, const at::Tensor& weight_VD,
                                  const at::Tensor& target_T, int64_t chunk = 1024);
void check_targets(const at::Tensor& target_T, int64_t vocab_size);  // throws Error

// Indices of the k largest scores of each row, best first, ties to the lowest index, NaN never: [U, k] int32;
// -1 where a row has fewer than k comparable scores. scores_UE [U, E] float or double, no gradient.
at::Tensor select_top_k(const at::Tensor& scores_UE, int64_t k);

// Kept pairs sorted by (expert, pair). expert_N int32, -1: no pair; kept_N uint8 or undefined (all kept). The
// host does not wait for a device: how many were kept is not known there, and A = N.
struct SortedPairs {
  at::Tensor expert_offsets_E1 = {};  // [E + 1] int32
  at::Tensor pair_of_row_A = {};      // [A] int32, -1 behind the last expert's rows
  at::Tensor row_of_pair_N = {};      // [N] int32, -1: not kept
};
SortedPairs sort_pairs_by_expert(const at::Tensor& expert_N, const at::Tensor& kept_N, int64_t num_experts);

// How often each of 0 to num_values - 1 occurs in `values_N` (int32), -1 not counted: [num_values] int64.
at::Tensor count_values(const at::Tensor& values_N, int64_t num_values);

// values_N of the pairs that the rows are made of: [A], 0 where there is none. Differentiable in the values.
at::Tensor values_of_rows(const at::Tensor& values_N, const at::Tensor& pair_of_row_A,
                          const at::Tensor& row_of_pair_N);

}  // namespace conclave::ops
