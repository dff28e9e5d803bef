// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "conclave/moe/forward_context.h"

// Stage "score function": logits to scores, and what happens to logits that are no numbers.
namespace conclave::moe {

enum class ScoreFunction { kSoftmax, kSigmoid };
enum class NonFinitePolicy { kError, kMask };

// YAML spellings of NonFinitePolicy.
const std::vector<std::pair<std::string, NonFinitePolicy>>& non_finite_names();

// The logits with non-finite values refused (Error of kind kDiverged, naming the layer; of a device later,
// see RefusedLogits), or replaced by -inf: a score of 0 that is never selected.
at::Tensor checked_logits(const at::Tensor& logits_UE, NonFinitePolicy policy, int layer, RouterTrace& trace);

// Logits that are not finite where they have to be. `count` [] int64 of `of` logits: on the CPU throws Error
// (kind kDiverged) unless it is 0; on a device it is left in the trace, to be refused later (RefusedLogits).
void refuse_non_finite(const at::Tensor& count, int64_t of, int layer, RouterTrace& trace);

// Scores of all experts. `log_UE` is exact where a score underflows. A unit whose logits were masked whole
// has logits 0 here, so that losses stay finite; `masked_UE` (undefined: none) says what may not be selected.
struct Scores {
  at::Tensor logits_UE = {}, log_UE = {}, probs_UE = {};
  // Logarithms up to a constant per unit (logits under softmax): enough to compare and to renormalise, and
  // without a gradient path to other experts.
  at::Tensor relative_UE = {};
  at::Tensor masked_UE = {};  // bool
};
// Of logits as checked_logits() returns them.
Scores scored(const at::Tensor& logits_UE, ScoreFunction function, NonFinitePolicy policy, int layer,
              RouterTrace& trace);

// The scores of the chosen experts made to sum to one, in log space: exact however small they are, with no
// epsilon. left_out_UK (bool) get 0; a unit with all of them left out is treated as if it had none, so that
// nothing is 0/0.
at::Tensor normalised_scores(const Scores& scores, const at::Tensor& chosen_UK,
                             const at::Tensor& left_out_UK);

}  // namespace conclave::moe
