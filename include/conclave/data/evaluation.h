// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "conclave/data/batch.h"
#include "conclave/data/dataset.h"
#include "conclave/data/packing.h"

namespace conclave::data {

struct EvaluationOptions {
  int64_t micro_batch_size = 1;
  int64_t rank = 0;
  int64_t num_ranks = 1;
  // null: all held-out tokens. Else a fixed sample: the first max_tokens / domains tokens (marks included) of
  // each domain; a domain that has fewer gives all that it has.
  std::optional<int64_t> max_tokens = {};
};

// The held-out documents, domain by domain, in non-overlapping windows of seq_length (concat packing); each
// domain starts a row and pads its last one. The same tokens for any number of ranks and any micro-batch
// size.
class EvaluationSet {
 public:
  EvaluationSet(const Dataset& dataset, const EvaluationOptions& options);
  // Batches of this rank; the same on all ranks, so that ranks stay in step. Rows and whole batches beyond
  // the data are padding. 0 when nothing is held out.
  int64_t num_batches() const;
  Batch batch(int64_t index) const;
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // Over all ranks.
  int64_t num_rows() const { return num_rows_; }
  int64_t num_tokens() const { return num_tokens_; }

 private:
  struct Part {
    std::shared_ptr<const Packer> packer;
    int64_t num_rows = 0;
    int64_t num_tokens = 0;
  };
  EvaluationOptions options_;
  int64_t seq_length_ = 0;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<Part> parts_;
  int64_t num_rows_ = 0, num_tokens_ = 0;
};

}  // namespace conclave::data
