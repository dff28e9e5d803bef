// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "conclave/data/batch.h"
#include "conclave/data/document_set.h"
#include "conclave/data/options.h"

namespace conclave::data {

// Lays a source out as rows of seq_length tokens ("windows"). In every packing:
// - each token of the source stands in exactly one window, and each has a target: the next token of its
// document, or
//   the document mark after the last one. No target lies in another document;
// - `document` numbers the documents of the row from 0; `position` counts from where the document's part in
// this row
//   begins, since nothing before it is visible;
// - what is left of a row is padding.
class Packer {
 public:
  virtual ~Packer() = default;
  virtual int64_t num_windows() const = 0;
  // Tokens (= targets) of a window.
  virtual int64_t num_tokens(int64_t window) const = 0;
  // Fills row `row` of a batch made by `empty_batch`; global ids are not set.
  virtual void fill(int64_t window, int64_t row, Batch& batch) const = 0;
};

// All padding.
Batch empty_batch(int64_t num_sequences, int64_t seq_length);

// Sets num_tokens, num_targets and num_target_bytes from the rows.
void count_tokens(Batch& batch, const Tokenizer& tokenizer);

// concat: window w holds positions [w * seq_length, (w + 1) * seq_length) of the stream; only the last may be
// padded. none:   each document is cut into pieces of seq_length from its start; a piece is a row of its own.
std::unique_ptr<Packer> make_packer(Packing packing, DocumentSet documents, int64_t seq_length,
                                    int32_t document_mark);

}  // namespace conclave::data
