// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>

#include "conclave/data/evaluation.h"
#include "conclave/model/language_model.h"
#include "conclave/train/evaluation_observer.h"

namespace conclave::train {

// One domain's share of an evaluation, or all of it.
struct Score {
  double nats = 0;
  int64_t targets = 0;  // document marks included
  int64_t bytes = 0;    // of text; marks cost bits but are no bytes
  double loss() const;  // nats per target; 0 without any
  double bits_per_byte() const;
};

struct EvaluationResult {
  double loss = 0;           // nats per target, document marks included; masked_lm: per hidden token
  double bits_per_byte = 0;  // all targets' nats over the bytes of text, / ln 2; masked_lm: 0, it has none
  int64_t targets = 0;
  int64_t bytes = 0;
  model::Objective objective = model::Objective::kCausalLm;
  std::map<int32_t, Score> domains = {};  // by Batch::domain
};

// Scores a held-out set in evaluation phase, without gradient; leaves the training state untouched. Under
// masked_lm the same tokens are hidden every time. An empty set gives zeros with targets == 0. `observer`
// (may be null) sees every batch that has a target.
EvaluationResult evaluate(model::LanguageModel& model, const data::EvaluationSet& set, uint64_t seed,
                          int64_t step, EvaluationObserver* observer = nullptr);

}  // namespace conclave::train
