// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/stages/scores.h"

#include <cmath>

#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::moe {

const std::vector<std::pair<std::string, NonFinitePolicy>>& non_finite_names() {
  static const std::vector<std::pair<std::string, NonFinitePolicy>> names = {
      {"error", NonFinitePolicy::kError}, {"mask", NonFinitePolicy::kMask}};
  return names;
}

namespace {

[[noreturn]] void refuse_logits(int64_t non_finite, int64_t of, int layer) {
  throw Error(fmt::format("router of layer {}: {} of {} logits are NaN or infinite; lower the learning rate, "
                          "add a z_loss, or set router.on_nonfinite: mask",
                          layer, non_finite, of),
              Error::Kind::kDiverged);
}

}  // namespace

void refuse_non_finite(const at::Tensor& count, int64_t of, int layer, RouterTrace& trace) {
  if (!count.is_cpu()) {
    trace.non_finite = count;
  } else if (const auto non_finite = count.item<int64_t>(); non_finite > 0) {
    refuse_logits(non_finite, of, layer);
  }
}

at::Tensor checked_logits(const at::Tensor& logits_UE, NonFinitePolicy policy, int layer,
                          RouterTrace& trace) {
  const auto bad_UE = logits_UE.detach().isfinite().logical_not();
  if (policy == NonFinitePolicy::kMask) return logits_UE.masked_fill(bad_UE, -INFINITY);
  refuse_non_finite(bad_UE.sum(), logits_UE.numel(), layer, trace);
  return logits_UE;
}

Scores scored(const at::Tensor& logits_UE, ScoreFunction function, NonFinitePolicy policy, int layer,
              RouterTrace& trace) {
  Scores scores{.logits_UE = checked_logits(logits_UE, policy, layer, trace)};
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

void RefusedLogits::add(const std::vector<RouterTrace>& traces) {
  for (const auto& trace : traces) {
    if (trace.non_finite.defined())
      on_devices_.push_back({trace.layer, trace.logits_UE.numel(), trace.non_finite});
  }
}

void RefusedLogits::check() const {
  std::vector<at::Tensor> counts;
  for (const auto& logits : on_devices_) counts.push_back(logits.non_finite);
  if (counts.empty()) return;
  const auto on_host = at::stack(counts).cpu();
  for (size_t i = 0; i < on_devices_.size(); ++i) {
    const int64_t count = on_host.const_data_ptr<int64_t>()[i];
    if (count > 0) refuse_logits(count, on_devices_[i].count, on_devices_[i].layer);
  }
}

}  // namespace conclave::moe
