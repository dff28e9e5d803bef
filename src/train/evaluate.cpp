// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/evaluate.h"

#include <cmath>
#include <numbers>

#include <c10/core/GradMode.h>

#include "conclave/data/masking.h"
#include "conclave/model/objective.h"

namespace conclave::train {

double Score::loss() const {
  return targets > 0 ? nats / static_cast<double>(targets) : 0;
}

double Score::bits_per_byte() const {
  return bytes > 0 ? nats / std::numbers::ln2 / static_cast<double>(bytes) : 0;
}

namespace {

void add_scores(const data::Batch& batch, const data::Tokenizer& tokenizer, const at::Tensor& loss_T,
                std::map<int32_t, Score>& domains) {
  const auto loss = loss_T.to(at::kCPU, at::kDouble).contiguous();
  const double* nats = loss.const_data_ptr<double>();
  for (size_t i = 0; i < batch.target.size(); ++i) {
    if (batch.target[i] < 0) continue;
    Score& score = domains[batch.domain[i]];
    score.nats += nats[i];
    score.targets += 1;
    score.bytes += tokenizer.bytes_of(batch.target[i]);
  }
}

}  // namespace

EvaluationResult evaluate(model::LanguageModel& model, const data::EvaluationSet& set, uint64_t seed,
                          int64_t step, EvaluationObserver* observer) {
  const c10::NoGradGuard no_grad;
  EvaluationResult result;
  result.objective = model.options().objective;
  for (int64_t i = 0; i < set.num_batches(); ++i) {
    data::Batch batch = set.batch(i);
    model::set_targets(batch, model.options(), set.tokenizer(), data::kValidationMask);
    if (batch.num_targets == 0) continue;
    moe::ForwardContext context;
    context.phase = moe::Phase::kEval;
    context.step = step;
    context.random = {.seed = seed, .step = static_cast<uint64_t>(step)};
    add_scores(batch, set.tokenizer(), model.loss(batch, context).per_token_T, result.domains);
    moe::RefusedLogits refused;
    refused.add(context.traces);
    refused.check();
    if (observer) observer->observe(batch, context.traces);
  }
  Score all;
  for (const auto& [domain, score] : result.domains) {
    all.nats += score.nats;
    all.targets += score.targets;
    all.bytes += score.bytes;
  }
  result.loss = all.loss();
  result.targets = all.targets;
  result.bytes = all.bytes;
  if (model::codes_text(result.objective)) result.bits_per_byte = all.bits_per_byte();
  return result;
}

}  // namespace conclave::train
