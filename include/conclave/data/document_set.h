// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "conclave/data/token_file.h"

namespace conclave::data {

// An ordered selection of the documents of one token file, read as one stream of tokens: mark, text, mark,
// text, ...
class DocumentSet {
 public:
  // `domain_ids[d]` is the dataset's index of the file's domain d.
  DocumentSet(TokenFile tokens, std::vector<int64_t> documents, std::vector<int32_t> domain_ids);

  int64_t size() const { return static_cast<int64_t>(documents_.size()); }
  int64_t num_tokens() const { return begin_.back(); }
  // Position in the stream of the i-th document's mark; begin(size()) is num_tokens().
  int64_t begin(int64_t i) const { return begin_[static_cast<size_t>(i)]; }
  int64_t length(int64_t i) const { return begin(i + 1) - begin(i); }
  int32_t domain(int64_t i) const;
  uint64_t content_hash(int64_t i) const { return tokens_.content_hash(documents_[static_cast<size_t>(i)]); }
  // The document that the position lies in.
  int64_t document_at(int64_t position) const;
  // Tokens [offset, offset + out.size()) of the i-th document.
  void copy(int64_t i, int64_t offset, std::span<int32_t> out) const;
  // The documents with these indices, in the order given.
  DocumentSet selected(std::span<const int64_t> indices) const;

 private:
  TokenFile tokens_;
  std::vector<int64_t> documents_;
  std::vector<int32_t> domain_ids_;
  std::vector<int64_t> begin_;
};

}  // namespace conclave::data
