// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/config/fields.h"
#include "conclave/moe/forward_context.h"

// Parts of the stages "selection bias" and "selector".
namespace conclave::moe {

enum class GroupScore { kMax, kTop2Sum };

// Group-limited selection (DeepSeek-V2 and V3, 2024): experts lie in equal groups of neighbours; a token
// keeps its best groups and chooses inside them. Group score: the largest selection score of the group (V2),
// or the sum of its two largest (V3).
struct GroupLimitOptions {
  int64_t num_groups = 8;
  int64_t topk_groups = 4;
  GroupScore group_score = GroupScore::kTop2Sum;
  void fields(config::Fields& f);
};

// Experts outside the kept groups, bool [U, E]. scores_UE is what selects; `logarithms` (bool []) says that
// it holds logarithms of scores, which are then summed as scores. Ties go to the lowest group.
at::Tensor outside_kept_groups(const GroupLimitOptions& options, const at::Tensor& scores_UE,
                               const at::Tensor& logarithms);

enum class SecondExpert { kAll, kRandom };

// What happens to the second of two choices (GShard, Lepikhin et al., 2020): it always counts, or with
// probability min(1, g2 / threshold), g2 being its weight after normalisation over the two.
struct SecondExpertOptions {
  SecondExpert train = SecondExpert::kAll;
  SecondExpert eval = SecondExpert::kAll;
  double threshold = 0.5;
  void fields(config::Fields& f);
  bool by_chance(Phase phase) const {
    return (phase == Phase::kTrain ? train : eval) == SecondExpert::kRandom;
  }
};

// chosen_UK [U, 2] with -1 where chance leaves the second choice out. normalised_UK: weights that sum to one.
at::Tensor with_second_by_chance(const SecondExpertOptions& options, const at::Tensor& chosen_UK,
                                 const at::Tensor& normalised_UK, const UnitMap& units,
                                 const ForwardContext& context, int layer);

}  // namespace conclave::moe
