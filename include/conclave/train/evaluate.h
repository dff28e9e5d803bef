// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/data/evaluation.h"
#include "conclave/model/language_model.h"
#include "conclave/train/evaluation_observer.h"

namespace conclave::train {

struct EvaluationResult {
  double loss = 0;  // nats per target, document marks included
  double bits_per_byte =
      0;  // all targets' nats over the bytes of text, / ln 2; marks cost bits but are no bytes
  int64_t targets = 0;
  int64_t bytes = 0;
};

// Scores a held-out set in evaluation phase, without gradient; leaves the training state untouched. An empty
// set gives zeros with targets == 0. `observer` (may be null) sees every batch that has a target.
EvaluationResult evaluate(model::LanguageModel& model, const data::EvaluationSet& set, uint64_t seed,
                          int64_t step, EvaluationObserver* observer = nullptr);

}  // namespace conclave::train
