// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/evaluate.h"

#include <cmath>
#include <numbers>

#include <c10/core/GradMode.h>

namespace conclave::train {

EvaluationResult evaluate(model::LanguageModel& model, const data::EvaluationSet& set, uint64_t seed,
                          int64_t step, EvaluationObserver* observer) {
  const c10::NoGradGuard no_grad;
  EvaluationResult result;
  double nats = 0;
  for (int64_t i = 0; i < set.num_batches(); ++i) {
    const data::Batch batch = set.batch(i);
    if (batch.num_targets == 0) continue;
    moe::ForwardContext context;
    context.phase = moe::Phase::kEval;
    context.step = step;
    context.random = {.seed = seed, .step = static_cast<uint64_t>(step)};
    nats += model.loss(batch, context).sum.item<double>();
    if (observer) observer->observe(batch, context.traces);
    result.targets += batch.num_targets;
    result.bytes += batch.num_target_bytes;
  }
  if (result.targets > 0) result.loss = nats / static_cast<double>(result.targets);
  if (result.bytes > 0) result.bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(result.bytes);
  return result;
}

}  // namespace conclave::train
