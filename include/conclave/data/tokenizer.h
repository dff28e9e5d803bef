// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/config/fields.h"

namespace conclave::data {

// Text to token ids and back. Immutable and safe to use from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual int64_t vocab_size() const = 0;
  // Appends the ids of `text`; never a document mark.
  virtual void encode(std::string_view text, std::vector<int32_t>& ids) const = 0;
  // The text of the ids; document marks are left out. Throws Error on an id outside the vocabulary.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  // Starts every document, and is what the last token of a document predicts.
  virtual int32_t document_mark() const = 0;
  // Bytes of text that the token stands for; 0 for the document mark. Throws Error outside the vocabulary.
  virtual int64_t bytes_of(int32_t token) const = 0;
  // Everything that the ids depend on (kind, version, a checksum of the vocabulary): part of the cache's key.
  virtual std::string identity() const = 0;

  std::vector<int32_t> encode(std::string_view text) const;
};

// A line of the table of tokenizers; `tokenizer: {type: NAME}` in YAML.
struct TokenizerEntry : config::PluginInfo {
  std::function<std::shared_ptr<const Tokenizer>(const config::AnyOptions&)> make;
};

// The tokenizers of the library. A program adds its own to the copy that it gets.
std::vector<TokenizerEntry> builtin_tokenizers();

// Throws Error that lists the known names.
std::shared_ptr<const Tokenizer> make_tokenizer(
    const config::Plugin& choice, const std::vector<TokenizerEntry>& table = builtin_tokenizers());

// Ids 0 to 255 are the bytes, 256 is the document mark.
std::shared_ptr<const Tokenizer> byte_tokenizer();

}  // namespace conclave::data
