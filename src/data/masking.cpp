// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/masking.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/data/packing.h"

namespace conclave::data {

void MaskingOptions::fields(config::Fields& f) {
  f("rate", rate, "Share of the tokens that are to be predicted.").positive().max(1);
  f("mask_fraction", mask_fraction, "Of these, the share that is replaced by the mask token.").min(0).max(1);
  f("random_fraction", random_fraction, "Of these, the share that is replaced by a random token.")
      .min(0)
      .max(1);
  f.check([this](config::Check& check) {
    if (mask_fraction + random_fraction > 1.0 + 1e-12) {
      check.error("random_fraction",
                  fmt::format("mask_fraction {} and random_fraction {} are more than the whole",
                              mask_fraction, random_fraction),
                  "make their sum at most 1; the rest of the selected tokens stays as it is");
    }
  });
}

namespace {

// Draws of one token, by index.
enum MaskDraw : uint32_t { kSelected = 0, kReplacement = 1, kRandomToken = 2 };

// A token that is no document mark, uniform.
int32_t random_token(const Tokenizer& tokenizer, double draw) {
  const auto count = static_cast<double>(tokenizer.vocab_size() - 1);
  const auto token = static_cast<int32_t>(std::min(draw * count, count - 1));
  return token < tokenizer.document_mark() ? token : token + 1;
}

}  // namespace

void mask_tokens(Batch& batch, const MaskingOptions& options, const Tokenizer& tokenizer,
                 const RandomKey& key) {
  const int32_t mask = mask_token(tokenizer);
  for (size_t i = 0; i < batch.token.size(); ++i) {
    batch.target[i] = -1;
    if (batch.document[i] < 0 || batch.token[i] == tokenizer.document_mark()) continue;
    const auto draw = [&](MaskDraw what) {
      return key.uniform(RandomStream::kMasking, 0, static_cast<uint64_t>(batch.global_id[i]), what);
    };
    if (draw(kSelected) >= options.rate) continue;
    batch.target[i] = batch.token[i];
    const double replacement = draw(kReplacement);
    if (replacement < options.mask_fraction) {
      batch.token[i] = mask;
    } else if (replacement < options.mask_fraction + options.random_fraction) {
      batch.token[i] = random_token(tokenizer, draw(kRandomToken));
    }
  }
  count_tokens(batch, tokenizer);
}

}  // namespace conclave::data
