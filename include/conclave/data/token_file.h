// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "conclave/core/files.h"
#include "conclave/core/log.h"
#include "conclave/data/reader.h"
#include "conclave/data/tokenizer.h"

namespace conclave::data {

// The tokens of one source, mapped from a cache file. Each document is a document mark followed by its
// tokens; documents without text are left out. Copies share the mapping. The layout is in docs/data.md.
class TokenFile {
 public:
  // Throws Error when the file is not a whole token file for `key` (truncated, damaged, another source).
  TokenFile(const std::filesystem::path& path, const std::string& key);

  int64_t num_documents() const { return num_documents_; }
  int64_t num_tokens() const { return num_tokens_; }  // document marks included
  // Tokens of document d are [begin(d), begin(d + 1)).
  int64_t begin(int64_t document) const {
    return static_cast<int64_t>(offsets_[static_cast<size_t>(document)]);
  }
  void copy(int64_t begin, std::span<int32_t> out) const;
  int32_t domain(int64_t document) const { return domains_[static_cast<size_t>(document)]; }
  const std::vector<std::string>& domain_names() const { return domain_names_; }
  // Hash of the text: equal documents have equal hashes.
  uint64_t content_hash(int64_t document) const { return content_[static_cast<size_t>(document)]; }
  // Decides whether the document is held out: crc32("domain/id") in a built-in corpus, else the content hash.
  uint64_t split_key(int64_t document) const { return split_[static_cast<size_t>(document)]; }
  const std::string& key() const { return key_; }

 private:
  std::string key_;
  MappedFile file_;
  int64_t num_documents_ = 0, num_tokens_ = 0;
  const uint16_t* narrow_ = nullptr;  // vocabularies up to 65,536; else `wide_`
  const uint32_t* wide_ = nullptr;
  std::span<const uint64_t> offsets_, content_, split_;
  std::span<const int32_t> domains_;
  std::vector<std::string> domain_names_;
};

// What a token file is made from.
struct TokenSource {
  std::string name = {};  // for messages, and the domain of documents without a label
  std::vector<SourceFile> files = {};
  SourceOptions options = {};
  bool is_corpus = false;  // files of a built-in corpus: the domain is the file's stem, documents have ids
};

// The token file of `source` under `folder`, built when there is none, or when the present one is not whole.
// Its key covers the files' names and contents, the reader's options, the tokenizer and the format. Two
// builders at once are safe: the second waits for the first.
TokenFile open_tokens(const TokenSource& source, const Tokenizer& tokenizer,
                      const std::filesystem::path& folder, const Log& log);

}  // namespace conclave::data
