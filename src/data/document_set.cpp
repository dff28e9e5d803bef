// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/document_set.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::data {

DocumentSet::DocumentSet(TokenFile tokens, std::vector<int64_t> documents, std::vector<int32_t> domain_ids)
    : tokens_(std::move(tokens)),
      documents_(std::move(documents)),
      domain_ids_(std::move(domain_ids)),
      begin_({0}) {
  CONCLAVE_CHECK(domain_ids_.size() == tokens_.domain_names().size(),
                 "one domain id for each domain of the file");
  begin_.reserve(documents_.size() + 1);
  for (const int64_t d : documents_) {
    CONCLAVE_CHECK(d >= 0 && d < tokens_.num_documents(),
                   fmt::format("document {} of {}", d, tokens_.num_documents()));
    begin_.push_back(begin_.back() + tokens_.begin(d + 1) - tokens_.begin(d));
  }
}

int32_t DocumentSet::domain(int64_t i) const {
  return domain_ids_[static_cast<size_t>(tokens_.domain(documents_[static_cast<size_t>(i)]))];
}

int64_t DocumentSet::document_at(int64_t position) const {
  return std::upper_bound(begin_.begin(), begin_.end(), position) - begin_.begin() - 1;
}

void DocumentSet::copy(int64_t i, int64_t offset, std::span<int32_t> out) const {
  CONCLAVE_CHECK(
      offset >= 0 && offset + static_cast<int64_t>(out.size()) <= length(i),
      fmt::format("tokens from {} on, {} of them, of a document of {}", offset, out.size(), length(i)));
  tokens_.copy(tokens_.begin(documents_[static_cast<size_t>(i)]) + offset, out);
}

DocumentSet DocumentSet::selected(std::span<const int64_t> indices) const {
  std::vector<int64_t> documents;
  for (const int64_t i : indices) documents.push_back(documents_.at(static_cast<size_t>(i)));
  return DocumentSet(tokens_, std::move(documents), domain_ids_);
}

}  // namespace conclave::data
