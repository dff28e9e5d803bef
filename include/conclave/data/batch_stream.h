// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "conclave/data/batch.h"
#include "conclave/data/dataset.h"
#include "conclave/data/packing.h"
#include "conclave/data/sampler.h"

namespace conclave::data {

struct StreamOptions {
  uint64_t seed = 0;
  int64_t micro_batch_size = 1;  // rows of a batch
  int64_t rank = 0;              // data-parallel rank
  int64_t num_ranks = 1;
  std::optional<bool> shuffle = {};         // null: the dataset's, else true
  std::optional<int64_t> num_workers = {};  // null: the dataset's, else 1. 0: batches are prepared in next()
};

// Where the rows come from.
struct StreamSource {
  std::shared_ptr<const Packer> packer = {};
  double weight = 1.0;
};

// Sums over samples of all ranks, known before they are read.
struct SampleTotals {
  int64_t num_sequences = 0;
  int64_t num_tokens = 0;
  int64_t num_targets = 0;
};

// The training stream of one rank. Micro-batch j of the run holds the samples [j * mbs, (j + 1) * mbs) of the
// global order; rank r of R takes the micro-batches r, r + R, r + 2R, ... So a step of G samples is the same
// set of samples for any number of ranks that divides G / mbs, and global_id = sample index * seq_length +
// column is too. Not for use by several threads at once.
class BatchStream {
 public:
  BatchStream(const Dataset& dataset, const StreamOptions& options);
  BatchStream(std::vector<StreamSource> sources, std::shared_ptr<const Tokenizer> tokenizer,
              int64_t seq_length, const StreamOptions& options, std::string fingerprint = "");
  ~BatchStream();
  BatchStream(BatchStream&&) noexcept;
  BatchStream& operator=(BatchStream&&) noexcept;

  // This rank's next micro-batch. An error in the background thread is thrown here, and again by every
  // further call.
  Batch next();
  // Where the run stands: counts the samples of all ranks up to this rank's last batch, and of no prefetched
  // one. Equal on all ranks when all have taken the same number of batches.
  SamplerState state() const;
  // Goes on from `state`, which may come from another number of ranks or another micro-batch size. Throws
  // Error when it belongs to another dataset.
  void restore(const SamplerState& state);
  // Totals over the next `num_samples` samples of the run, all ranks together; reads no token. With
  // `num_samples` the global batch size, ask before the step's first next().
  SampleTotals totals(int64_t num_samples) const;
  // Windows of all sources together: samples of one epoch, when there is one source.
  int64_t num_windows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace conclave::data
