// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/packing.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::data {

namespace {

class RowWriter {
 public:
  RowWriter(int64_t row, Batch& batch, int32_t mark)
      : batch_(batch), at_(row * batch.seq_length), mark_(mark) {
    CONCLAVE_CHECK(row >= 0 && row < batch.num_sequences,
                   fmt::format("row {} of {}", row, batch.num_sequences));
  }

  // Appends tokens [offset, offset + count) of document i as one document of the row.
  void add(const DocumentSet& documents, int64_t i, int64_t offset, int64_t count) {
    const auto place = [&](std::vector<int32_t>& values, int64_t size) {
      return std::span(values).subspan(static_cast<size_t>(at_), static_cast<size_t>(size));
    };
    documents.copy(i, offset, place(batch_.token, count));
    const bool is_end = offset + count == documents.length(i);
    documents.copy(i, offset + 1, place(batch_.target, is_end ? count - 1 : count));
    if (is_end) batch_.target[static_cast<size_t>(at_ + count - 1)] = mark_;
    for (int64_t k = 0; k < count; ++k) {
      const auto to = static_cast<size_t>(at_ + k);
      batch_.document[to] = num_documents_;
      batch_.position[to] = static_cast<int32_t>(k);
      batch_.domain[to] = documents.domain(i);
    }
    at_ += count;
    ++num_documents_;
  }

 private:
  Batch& batch_;
  int64_t at_;
  int32_t mark_;
  int32_t num_documents_ = 0;
};

class ConcatPacker : public Packer {
 public:
  ConcatPacker(DocumentSet documents, int64_t seq_length, int32_t mark)
      : documents_(std::move(documents)), seq_length_(seq_length), mark_(mark) {}

  int64_t num_windows() const override { return (documents_.num_tokens() + seq_length_ - 1) / seq_length_; }

  int64_t num_tokens(int64_t window) const override {
    return std::min(seq_length_, documents_.num_tokens() - window * seq_length_);
  }

  void fill(int64_t window, int64_t row, Batch& batch) const override {
    RowWriter writer(row, batch, mark_);
    int64_t position = window * seq_length_;
    const int64_t end = position + num_tokens(window);
    for (int64_t i = documents_.document_at(position); position < end; ++i) {
      const int64_t count = std::min(documents_.begin(i + 1), end) - position;
      writer.add(documents_, i, position - documents_.begin(i), count);
      position += count;
    }
  }

 private:
  DocumentSet documents_;
  int64_t seq_length_;
  int32_t mark_;
};

class SeparatePacker : public Packer {
 public:
  SeparatePacker(DocumentSet documents, int64_t seq_length, int32_t mark)
      : documents_(std::move(documents)), seq_length_(seq_length), mark_(mark), first_window_({0}) {
    for (int64_t i = 0; i < documents_.size(); ++i) {
      first_window_.push_back(first_window_.back() + (documents_.length(i) + seq_length - 1) / seq_length);
    }
  }

  int64_t num_windows() const override { return first_window_.back(); }

  int64_t num_tokens(int64_t window) const override {
    const Piece piece = piece_of(window);
    return std::min(seq_length_, documents_.length(piece.document) - piece.offset);
  }

  void fill(int64_t window, int64_t row, Batch& batch) const override {
    const Piece piece = piece_of(window);
    RowWriter(row, batch, mark_).add(documents_, piece.document, piece.offset, num_tokens(window));
  }

 private:
  struct Piece {
    int64_t document = 0, offset = 0;
  };
  Piece piece_of(int64_t window) const {
    const auto after = std::upper_bound(first_window_.begin(), first_window_.end(), window);
    const int64_t document = after - first_window_.begin() - 1;
    return {document, (window - first_window_[static_cast<size_t>(document)]) * seq_length_};
  }

  DocumentSet documents_;
  int64_t seq_length_;
  int32_t mark_;
  std::vector<int64_t> first_window_;
};

}  // namespace

Batch empty_batch(int64_t num_sequences, int64_t seq_length) {
  CONCLAVE_CHECK(num_sequences >= 0 && seq_length > 0,
                 fmt::format("a batch of {} x {}", num_sequences, seq_length));
  Batch batch;
  batch.num_sequences = num_sequences;
  batch.seq_length = seq_length;
  const auto size = static_cast<size_t>(batch.size());
  batch.token.assign(size, 0);
  batch.target.assign(size, -1);
  batch.document.assign(size, -1);
  batch.position.assign(size, 0);
  batch.domain.assign(size, -1);
  batch.global_id.assign(size, 0);
  return batch;
}

void count_tokens(Batch& batch, const Tokenizer& tokenizer) {
  batch.num_tokens = batch.num_targets = batch.num_target_bytes = 0;
  for (size_t i = 0; i < batch.token.size(); ++i) {
    if (batch.document[i] >= 0) ++batch.num_tokens;
    if (batch.target[i] < 0) continue;
    ++batch.num_targets;
    batch.num_target_bytes += tokenizer.bytes_of(batch.target[i]);
  }
}

std::unique_ptr<Packer> make_packer(Packing packing, DocumentSet documents, int64_t seq_length,
                                    int32_t document_mark) {
  CONCLAVE_CHECK(seq_length > 0, fmt::format("seq_length is {}", seq_length));
  switch (packing) {
    case Packing::kConcat:
      return std::make_unique<ConcatPacker>(std::move(documents), seq_length, document_mark);
    case Packing::kNone:
      return std::make_unique<SeparatePacker>(std::move(documents), seq_length, document_mark);
  }
  throw Error("unknown packing");
}

}  // namespace conclave::data
