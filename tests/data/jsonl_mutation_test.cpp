// SPDX-License-Identifier: Apache-2.0
#include <zlib.h>
#include <zstd.h>

#include "data/helpers.h"
#include "fuzz/laws.h"
#include "fuzz/mutate.h"
#include "fuzz/scratch_file.h"

namespace conclave::data {
namespace {

constexpr std::string_view kTelling = "{}[]\",:0123456789-.eE\\u/ \t\r\ntnf\xFF\x80\xC3\xEF";
const std::string kCorpus =
    "\xEF\xBB\xBF{\"text\": \"a \\\"b\\\" \\u00e9 \\ud83d\\ude00\", \"topic\": \"t\xC3\xA9\"}\n\n"
    "{\"id\": 7, \"topic\": \"u\", \"text\": \"line\\nline\", \"more\": [1, -2.5e3, null, {\"x\": true}]}\r\n"
    "{\"text\": \"\", \"topic\": \"u\", \"id\": \"third\"}\n {\"topic\":\"v\",\"text\":\"last\"}";

TEST(JsonlMutations, only_bad_data_with_its_line_comes_out_of_damaged_files) {
  ASSERT_TRUE(fuzz::jsonl_law(kCorpus));
  std::mt19937_64 random(20240615);
  int accepted = 0;
  for (int i = 0; i < fuzz::kMutations; ++i) {
    const std::string text = fuzz::mutated(kCorpus, kTelling, random);
    try {
      accepted += fuzz::jsonl_law(text);
    } catch (const std::exception& error) {
      FAIL() << "round " << i << ": " << error.what() << "\n" << text;
    }
  }
  EXPECT_GT(accepted, fuzz::kMutations / 50);
  EXPECT_LT(accepted, fuzz::kMutations / 2);
}

TEST(JsonlMutations, inputs_that_fuzzing_found_are_refused_as_bad_data) {
  EXPECT_FALSE(fuzz::jsonl_law("9E994"));
  EXPECT_FALSE(fuzz::jsonl_law("{\"text\": \"a\", \"topic\": \"b\", \"score\": -1e400}\n"));
}

// Archives: whatever comes out is an Error of kind kData.
void expect_sound(const std::string& archive, const char* name, uint64_t seed) {
  const fuzz::ScratchFile scratch(name);
  std::mt19937_64 random(seed);
  int refused = 0;
  for (int i = 0; i < fuzz::kMutations / 10; ++i) {
    const auto& file = scratch.write(i == 0 ? archive : fuzz::mutated(archive, kTelling, random));
    int documents = 0;
    try {
      read_documents(file, {.label_field = "topic"}, [&](Document&&) { ++documents; });
      EXPECT_TRUE(i > 0 || documents == 53);
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), Error::Kind::kData) << error.what();
      ASSERT_GT(i, 0) << error.what();
      ++refused;
    }  // any other exception fails the test
  }
  EXPECT_GT(refused, fuzz::kMutations / 20);
}

TEST(JsonlMutations, damaged_gzip_files_are_refused_as_bad_data) {
  const std::string text = toy_jsonl(53);
  std::string packed(text.size() + 1024, '\0');
  z_stream stream{};
  ASSERT_EQ(::deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ASSERT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  expect_sound(packed, "m.jsonl.gz", 3);
}

TEST(JsonlMutations, damaged_zstd_files_are_refused_as_bad_data) {
  const std::string text = toy_jsonl(53);
  std::string packed(::ZSTD_compressBound(text.size()), '\0');
  packed.resize(::ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  expect_sound(packed, "m.jsonl.zst", 5);
}

}  // namespace
}  // namespace conclave::data
