// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/tokenizer.h"

#include "data/helpers.h"

namespace conclave::data {
namespace {

TEST(ByteTokenizer, EveryByteComesBack) {
  std::string text;
  for (int b = 255; b >= 0; --b) text.push_back(static_cast<char>(b));
  const auto tokenizer = byte_tokenizer();
  const auto ids = tokenizer->encode(text);
  ASSERT_EQ(ids.size(), text.size());
  EXPECT_EQ(ids.front(), 255);
  EXPECT_EQ(tokenizer->decode(ids), text);
}

TEST(ByteTokenizer, TheDocumentMarkIsNoText) {
  const auto tokenizer = byte_tokenizer();
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->document_mark(), 256);
  EXPECT_EQ(tokenizer->bytes_of(256), 0);
  EXPECT_EQ(tokenizer->bytes_of(0), 1);
  const std::vector<int32_t> ids = {256, 'h', 'i', 256};
  EXPECT_EQ(tokenizer->decode(ids), "hi");
}

TEST(ByteTokenizer, AnIdOutsideTheVocabularyIsNamed) {
  const auto tokenizer = byte_tokenizer();
  const std::vector<int32_t> high = {65, 257}, negative = {-1};
  expect_contains(error_of([&] { tokenizer->decode(high); }), {"257", "vocabulary"});
  expect_contains(error_of([&] { tokenizer->decode(negative); }), {"-1"});
}

TEST(TokenizerTable, AnUnknownNameListsTheKnownOnes) {
  expect_contains(error_of([] { make_tokenizer({.type = "byte", .options = {}}); }), {"'byte'", "bytes"});
  EXPECT_EQ(make_tokenizer({.type = "bytes", .options = {}})->vocab_size(), 257);
}

TEST(TokenizerTable, AProgramAddsItsOwn) {
  auto table = builtin_tokenizers();
  TokenizerEntry own = table.front();
  own.name = "mine";
  table.push_back(own);
  EXPECT_EQ(make_tokenizer({.type = "mine", .options = {}}, table)->document_mark(), 256);
}

}  // namespace
}  // namespace conclave::data
