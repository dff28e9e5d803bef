// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/config/fields.h"
#include "conclave/core/random.h"

#include <ATen/core/Tensor.h>

// Stage "capacity": a limit on the units of one expert.
namespace conclave::moe {

enum class CapacityOrder { kPosition, kProb, kRandom };
enum class CapacityRounding { kCeil, kFloor, kRound };

// Buffer limit per expert: C = min(T, up(max(min, round((k * T / E) * factor)))), evaluated in double in this
// order; up() is to the next multiple of `multiple_of`. T counts units, never padding. `factor` off:
// dropless.
struct CapacityOptions {
  std::optional<config::Value> factor = {};
  std::optional<config::Value> eval_factor = {};
  int64_t min = 4;
  CapacityOrder order = CapacityOrder::kPosition;
  CapacityRounding rounding = CapacityRounding::kCeil;
  int64_t multiple_of = 1;
  bool renormalize_after_drop = false;  // the weights that are left sum to one again
  void fields(config::Fields& f);
};

// Units an expert may take; `factor` must be present. Throws Error, naming T, when no slot is left.
int64_t expert_capacity(const CapacityOptions& options, double factor, int64_t num_units, int64_t num_experts,
                        int64_t top_k);

// Which pairs stay inside the capacity: uint8 [N]. Pairs are sorted by (unit, choice).
//   position  first choices of all units before second ones, inside a choice by unit
//   prob      per expert the largest weights; ties to the lower pair
//   random    as position, but units in the order of uniform draws keyed by their global id (training only:
//             the router passes `position` in evaluation)
at::Tensor keep_within_capacity(CapacityOrder order, int64_t capacity, int64_t num_experts,
                                const at::Tensor& unit_N, const at::Tensor& expert_N,
                                const at::Tensor& choice_N, const at::Tensor& weight_N,
                                const at::Tensor& global_id_U, const RandomKey& random, int layer);

}  // namespace conclave::moe
