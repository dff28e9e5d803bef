// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/router.h"
#include "conclave/moe/stages/scores.h"

// Gates whose decision looks at more than one token.
namespace conclave::moe {

// Expert choice (Zhou et al., 2022; catalogue E01): each expert takes its C best units of the routing group,
// all units of the micro-batch, C = min(T, ceil(T * factor / E)), so a unit gets between 0 and E experts.
// Weight: its softmax score, not renormalised. No auxiliary loss is needed.
struct ExpertChoiceOptions {
  config::Value factor = 2.0;  // average number of experts per unit
  NonFinitePolicy on_nonfinite = NonFinitePolicy::kError;
  void fields(config::Fields& f);
};
std::shared_ptr<Router> make_expert_choice_router(const ExpertChoiceOptions& options,
                                                  const RouterShape& shape);
RouterEntry expert_choice_entry();

// Soft MoE (Puigcerver et al., 2023; catalogue S01): every slot is a weighted mean of a group's units, every
// unit a weighted mean of the slots' outputs; the group is one document of one sequence.
struct SoftOptions {
  int64_t slots_per_expert = 1;
  bool normalize = true;  // unit-norm inputs and slot vectors, with one learned scale
  void fields(config::Fields& f);
};
std::shared_ptr<Router> make_soft_router(const SoftOptions& options, const RouterShape& shape);
RouterEntry soft_entry();

}  // namespace conclave::moe
