// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/stages/scores.h"

#include <cmath>

#include <ATen/ops/full_like.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::moe {

const std::vector<std::pair<std::string, NonFinitePolicy>>& non_finite_names() {
  static const std::vector<std::pair<std::string, NonFinitePolicy>> names = {
      {"error", NonFinitePolicy::kError}, {"mask", NonFinitePolicy::kMask}};
  return names;
}

at::Tensor checked_logits(const at::Tensor& logits_UE, NonFinitePolicy policy, int layer) {
  const auto finite = logits_UE.detach().isfinite();
  if (finite.all().item<bool>()) return logits_UE;
  if (policy == NonFinitePolicy::kError) {
    throw Error(
        fmt::format("router of layer {}: {} of {} logits are NaN or infinite; lower the learning rate, add a "
                    "z_loss, or set router.on_nonfinite: mask",
                    layer, logits_UE.numel() - finite.sum().item<int64_t>(), logits_UE.numel()),
        Error::Kind::kDiverged);
  }
  return at::where(finite, logits_UE, at::full_like(logits_UE, -INFINITY));
}

Scores scored(const at::Tensor& logits_UE, ScoreFunction function, NonFinitePolicy policy, int layer) {
  Scores scores{.logits_UE = checked_logits(logits_UE, policy, layer)};
  if (policy == NonFinitePolicy::kMask) {
    scores.masked_UE = scores.logits_UE.detach().isinf();
    scores.logits_UE = scores.logits_UE.masked_fill(scores.masked_UE.all(-1, true), 0.0);
  }
  const bool softmax = function == ScoreFunction::kSoftmax;
  scores.log_UE = softmax ? scores.logits_UE.log_softmax(-1) : at::log_sigmoid(scores.logits_UE);
  scores.relative_UE = softmax ? scores.logits_UE : scores.log_UE;
  scores.probs_UE = scores.log_UE.exp();
  return scores;
}

at::Tensor normalised_scores(const Scores& scores, const at::Tensor& chosen_UK,
                             const at::Tensor& left_out_UK) {
  const auto hidden_UK = left_out_UK.logical_and(left_out_UK.all(1, true).logical_not());
  return scores.relative_UE.gather(1, chosen_UK.clamp_min(0).to(at::kLong))
      .masked_fill(hidden_UK, -INFINITY)
      .softmax(-1);
}

}  // namespace conclave::moe
