// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "conclave/config/fields.h"
#include "conclave/core/random.h"
#include "conclave/data/batch.h"
#include "conclave/data/tokenizer.h"

namespace conclave::data {

// Which tokens are hidden in masked language modelling (Devlin et al., 2019, section 3.1).
struct MaskingOptions {
  double rate = 0.15;            // share of the tokens that are to be predicted
  double mask_fraction = 0.8;    // of these: replaced by the mask token
  double random_fraction = 0.1;  // of these: replaced by a random token; the rest stays as it is
  void fields(config::Fields& f);
};

// The mask token's id: the one behind the tokenizer's last. It belongs to the model, not to the tokenizer, so
// that both objectives share one token cache.
inline int32_t mask_token(const Tokenizer& tokenizer) {
  return static_cast<int32_t>(tokenizer.vocab_size());
}

// Random decisions of the validation mask; the same for every run and step, so that its loss can be compared.
inline constexpr RandomKey kValidationMask = {.seed = 0x76616C6964, .step = 0};

// Turns a batch of next-token prediction into one of masked tokens: targets are the original tokens at the
// selected positions, -1 elsewhere. Document marks are neither selected nor drawn. Every decision is a
// function of (key, global token id), so it depends on no micro-batch, rank or restart. Counts are set anew.
void mask_tokens(Batch& batch, const MaskingOptions& options, const Tokenizer& tokenizer,
                 const RandomKey& key);

}  // namespace conclave::data
