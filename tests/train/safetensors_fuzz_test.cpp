// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "conclave/train/safetensors.h"
#include "fuzz/laws.h"
#include "fuzz/mutate.h"

namespace conclave::train {
namespace {

class MemoryWriter : public FileWriter {
 public:
  void write(std::span<const std::byte> bytes) override {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void finish() override {}
  std::string text;
};

std::string seed_file() {
  static const std::string bytes(96, 'x');
  MemoryWriter out;
  write_safetensors(out, "seed",
                    {{"layers.0.gate", "F32", {3, 5}, bytes_of(bytes).first(60)},
                     {"layers.1.gate", "BF16", {7}, bytes_of(bytes).first(14)},
                     {"scalar", "F64", {}, bytes_of(bytes).first(8)},
                     {"empty", "I64", {0, 3}, {}},
                     {"packed", "F4", {6}, bytes_of(bytes).first(3)}},
                    {{"note", "a \xC3\xA9 b"}});
  return out.text;
}

constexpr std::string_view kTelling("{}[]\",:0123456789-.eE\\u/ \0\xFF\x80tnf", 31);

TEST(SafetensorsFuzz, OnlyErrorComesOutOfDamagedFilesAndWhatIsAcceptedIsSound) {
  const std::string seed = seed_file();
  ASSERT_TRUE(fuzz::safetensors_law(seed));
  std::mt19937_64 random(20240611);
  int refused = 0;
  for (int i = 0; i < fuzz::kMutations; ++i) {
    try {
      refused += !fuzz::safetensors_law(fuzz::mutated(seed, kTelling, random));
    } catch (const std::exception& error) {
      FAIL() << "round " << i << ": " << error.what();
    }
  }
  EXPECT_GT(refused, fuzz::kMutations / 2) << "the mutations do not damage the files";
  EXPECT_LT(refused, fuzz::kMutations) << "no mutation touched only the data";
}

}  // namespace
}  // namespace conclave::train
