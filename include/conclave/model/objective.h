// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/core/random.h"
#include "conclave/data/batch.h"
#include "conclave/data/tokenizer.h"
#include "conclave/model/options.h"

namespace conclave::model {

// Turns a batch of next-token prediction, as the data room makes it, into one of the model's objective.
// causal_lm leaves it alone; masked_lm hides tokens by (key, global token id).
void set_targets(data::Batch& batch, const ModelOptions& options, const data::Tokenizer& tokenizer,
                 const RandomKey& key);

// Last part of the loss's name in metrics: "loss", or "masked_loss" per hidden token.
const char* loss_name(Objective objective);

// Whether nats of the loss are the length of a code for the text, so that bits per byte mean something.
inline bool codes_text(Objective objective) {
  return objective == Objective::kCausalLm;
}

}  // namespace conclave::model
