// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/router.h"
#include "conclave/moe/stages/capacity.h"
#include "conclave/moe/stages/noise.h"
#include "conclave/moe/stages/scores.h"
#include "conclave/moe/stages/selection.h"

namespace conclave::moe {

// Precision of the router's own arithmetic, whatever the model's: fp32, and fp64 in an fp64 model.
enum class RouterPrecision { kFp32 };

// Token choice, catalogue entries T01, T04-T07, T10, T11, T34, T35 of docs/routing.md: each token takes its k
// best experts. One pipeline: input (jitter) -> linear scorer -> noise -> score function -> selection bias
// and groups -> selector -> weights -> second-expert policy -> capacity.
struct TopKOptions {
  int64_t top_k = 2;
  ScoreFunction score_function = ScoreFunction::kSoftmax;
  bool score_before_topk = true;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;
  config::Value jitter_eps = 0.0;
  NoiseOptions noise = {};
  std::optional<GroupLimitOptions> group_limited = {};
  SecondExpertOptions second_expert_policy = {};
  CapacityOptions capacity = {};
  RouterPrecision dtype = RouterPrecision::kFp32;
  NonFinitePolicy on_nonfinite = NonFinitePolicy::kError;
  void fields(config::Fields& f);
  // Why a bank of that many experts does not suit them; "": it does.
  std::string refusal(int64_t num_experts) const;
  // Whether the weights of a token sum to one (times the scaling factor).
  bool normalises() const {
    return norm_topk_prob || (!score_before_topk && score_function == ScoreFunction::kSoftmax);
  }
};

std::shared_ptr<Router> make_topk_router(const TopKOptions& options, const RouterShape& shape);
RouterEntry topk_entry();

}  // namespace conclave::moe
