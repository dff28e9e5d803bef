// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/objective.h"

namespace conclave::model {

void set_targets(data::Batch& batch, const ModelOptions& options, const data::Tokenizer& tokenizer,
                 const RandomKey& key) {
  if (options.objective == Objective::kMaskedLm) data::mask_tokens(batch, options.masking, tokenizer, key);
}

const char* loss_name(Objective objective) {
  return objective == Objective::kMaskedLm ? "masked_loss" : "loss";
}

}  // namespace conclave::model
