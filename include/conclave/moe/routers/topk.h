// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/router.h"

namespace conclave::moe {

enum class ScoreFunction { kSoftmax, kSigmoid };
enum class NonFinitePolicy { kError, kMask };
enum class CapacityOrder { kPosition, kProb, kRandom };
enum class CapacityRounding { kCeil, kFloor, kRound };

// Buffer limit per expert: C = min(T, max(min, round((k * T / E) * factor))), evaluated in double in this
// order; T counts units, never padding. `factor` off: dropless.
struct CapacityOptions {
  std::optional<config::Value> factor = {};
  std::optional<config::Value> eval_factor = {};
  int64_t min = 4;
  CapacityOrder order = CapacityOrder::kPosition;
  CapacityRounding rounding = CapacityRounding::kCeil;
  void fields(config::Fields& f);
};

// Token choice, catalogue entries T04-T07, T10, T11, T34 of docs/routers.md: each token takes its k best
// experts.
struct TopKOptions {
  int64_t top_k = 2;
  ScoreFunction score_function = ScoreFunction::kSoftmax;
  bool score_before_topk = true;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;
  config::Value jitter_eps = 0.0;
  CapacityOptions capacity = {};
  NonFinitePolicy on_nonfinite = NonFinitePolicy::kError;
  void fields(config::Fields& f);
};

std::shared_ptr<Router> make_topk_router(const TopKOptions& options, const RouterShape& shape);
RouterEntry topk_entry();

// Units an expert may take; `factor` must be present. Throws Error, naming T, when no slot is left.
int64_t expert_capacity(const CapacityOptions& options, double factor, int64_t num_units, int64_t num_experts,
                        int64_t top_k);

// Which pairs stay inside the capacity: uint8 [N]. Pairs are sorted by (unit, choice).
//   position  first choices of all units before second ones, inside a choice by unit
//   prob      per expert the largest weights; ties to the lower pair
//   random    as position, but units in the order of uniform draws keyed by their global id
at::Tensor keep_within_capacity(CapacityOrder order, int64_t capacity, int64_t num_experts,
                                const at::Tensor& unit_N, const at::Tensor& expert_N,
                                const at::Tensor& choice_N, const at::Tensor& weight_N,
                                const at::Tensor& global_id_U, const RandomKey& random, int layer);

}  // namespace conclave::moe
