// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

// Legend: U units, E experts, K choices of a unit.
namespace conclave::ops {

// How each unit chooses its experts by its own scores. The terms are those of kernels/router.h.
struct TokenChoice {
  int64_t top_k = 1;
  bool sigmoid = false;   // scores: of each logit; else softmax over the experts
  bool normalise = true;  // the weights of a unit sum to `scale`; else weight = scale * score
  double scale = 1.0;
  int64_t num_groups = 0, topk_groups = 0;  // 0: no groups
  bool group_top2 = true;
};

struct ChosenExperts {
  at::Tensor chosen_UK = {};   // int32, best first, ties to the lowest expert; -1: none is left
  at::Tensor weight_UK = {};   // differentiable in the logits, 0 where there is no choice
  at::Tensor scores_UE = {};   // differentiable
  at::Tensor counts_E = {};    // int64, how often each expert was chosen
  at::Tensor non_finite = {};  // int64 [], logits that are NaN or infinite, which are never chosen
};

// Whether the device of the logits [U, E] has a kernel for their type and these sizes.
bool can_choose_experts(const at::Tensor& logits_UE, const TokenChoice& how);

// Scores, choice, weights and counts in one pass over the logits, their gradients in another.
//   logits_UE [U, E] fp32 or fp64;  bias_E [E] fp32, added to the scores for selection only, or undefined
//   given_UK  undefined, or the choices of a pass before, to be repeated
// Throws Error where it cannot.
ChosenExperts choose_experts(const at::Tensor& logits_UE, const at::Tensor& bias_E, const TokenChoice& how,
                             const at::Tensor& given_UK = {});

}  // namespace conclave::ops
