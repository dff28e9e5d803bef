// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/evaluation.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::data {

namespace {

// Turns the row's positions from `count` on into padding.
void cut_row(Batch& batch, int64_t row, int64_t count) {
  for (int64_t column = count; column < batch.seq_length; ++column) {
    const auto i = static_cast<size_t>(row * batch.seq_length + column);
    batch.token[i] = 0;
    batch.target[i] = batch.document[i] = batch.domain[i] = -1;
    batch.position[i] = 0;
  }
}

struct DomainPart {
  int32_t domain = 0;
  DocumentSet documents;
};

// The held-out documents of each domain and source, by domain, then source.
std::vector<DomainPart> split_by_domain(const Dataset& dataset) {
  std::vector<DomainPart> parts;
  for (const auto& source : dataset.valid) {
    std::vector<std::vector<int64_t>> indices(dataset.domain_names.size());
    for (int64_t i = 0; i < source.documents.size(); ++i) {
      indices[static_cast<size_t>(source.documents.domain(i))].push_back(i);
    }
    for (size_t domain = 0; domain < indices.size(); ++domain) {
      if (indices[domain].empty()) continue;
      parts.push_back({static_cast<int32_t>(domain), source.documents.selected(indices[domain])});
    }
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return a.domain < b.domain; });
  return parts;
}

}  // namespace

EvaluationSet::EvaluationSet(const Dataset& dataset, const EvaluationOptions& options)
    : options_(options), seq_length_(dataset.options.seq_length), tokenizer_(dataset.tokenizer) {
  CONCLAVE_CHECK(options.micro_batch_size > 0 && options.rank >= 0 && options.rank < options.num_ranks,
                 fmt::format("micro_batch_size {}, rank {} of {}", options.micro_batch_size, options.rank,
                             options.num_ranks));
  const auto found = split_by_domain(dataset);
  int64_t num_present = 0;
  for (size_t i = 0; i < found.size(); ++i)
    num_present += i == 0 || found[i].domain != found[i - 1].domain ? 1 : 0;
  int64_t left = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    if (i == 0 || found[i].domain != found[i - 1].domain) {
      left = options.max_tokens ? *options.max_tokens / num_present : INT64_MAX;
    }
    const int64_t tokens = std::min(left, found[i].documents.num_tokens());
    left -= tokens;
    if (tokens == 0) continue;
    const int64_t rows = (tokens + seq_length_ - 1) / seq_length_;
    parts_.push_back(
        {make_packer(Packing::kConcat, found[i].documents, seq_length_, tokenizer_->document_mark()), rows,
         tokens});
    num_rows_ += rows;
    num_tokens_ += tokens;
  }
}

int64_t EvaluationSet::num_batches() const {
  const int64_t rows = options_.micro_batch_size * options_.num_ranks;
  return (num_rows_ + rows - 1) / rows;
}

Batch EvaluationSet::batch(int64_t index) const {
  CONCLAVE_CHECK(index >= 0 && index < num_batches(), fmt::format("batch {} of {}", index, num_batches()));
  Batch batch = empty_batch(options_.micro_batch_size, seq_length_);
  const int64_t first = (index * options_.num_ranks + options_.rank) * options_.micro_batch_size;
  for (int64_t row = 0; row < options_.micro_batch_size; ++row) {
    int64_t window = first + row;
    for (int64_t column = 0; column < seq_length_; ++column) {
      batch.global_id[static_cast<size_t>(row * seq_length_ + column)] = (first + row) * seq_length_ + column;
    }
    for (const auto& part : parts_) {
      if (window < part.num_rows) {
        part.packer->fill(window, row, batch);
        cut_row(batch, row, part.num_tokens - window * seq_length_);
        break;
      }
      window -= part.num_rows;
    }
  }
  count_tokens(batch, *tokenizer_);
  return batch;
}

}  // namespace conclave::data
