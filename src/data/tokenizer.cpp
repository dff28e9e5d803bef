// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/tokenizer.h"

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::data {

namespace {

constexpr int32_t kByteDocumentMark = 256;

class ByteTokenizer : public Tokenizer {
 public:
  int64_t vocab_size() const override { return kByteDocumentMark + 1; }

  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    ids.reserve(ids.size() + text.size());
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const int32_t id : ids) {
      if (bytes_of(id) == 1) text.push_back(static_cast<char>(id));
    }
    return text;
  }

  int32_t document_mark() const override { return kByteDocumentMark; }

  int64_t bytes_of(int32_t token) const override {
    if (token < 0 || token > kByteDocumentMark) {
      throw Error(fmt::format(
          "token id {} is outside the vocabulary of {}; were these tokens made by another tokenizer?", token,
          vocab_size()));
    }
    return token == kByteDocumentMark ? 0 : 1;
  }

  std::string identity() const override { return "bytes-v1"; }
};

struct NoTokenizerOptions {
  void fields(config::Fields&) {}
};

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode(text, ids);
  return ids;
}

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  return std::make_shared<ByteTokenizer>();
}

std::vector<TokenizerEntry> builtin_tokenizers() {
  return {{{.name = "bytes",
            .doc = "Ids 0 to 255 are the bytes of the text, 256 is the document mark.",
            .defaults = [] { return config::AnyOptions(NoTokenizerOptions{}); }},
           [](const config::AnyOptions&) { return byte_tokenizer(); }}};
}

std::shared_ptr<const Tokenizer> make_tokenizer(const config::Plugin& choice,
                                                const std::vector<TokenizerEntry>& table) {
  std::vector<std::string> known;
  for (const auto& entry : table) {
    if (entry.name == choice.type) {
      return entry.make(choice.options.has_value() ? choice.options : entry.defaults());
    }
    known.push_back(entry.name);
  }
  throw Error(config::unknown_name("tokenizer", choice.type, known));
}

}  // namespace conclave::data
