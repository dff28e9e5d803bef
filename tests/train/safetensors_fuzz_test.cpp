// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/train/safetensors.h"
#include "conclave/train/safetensors_dtypes.h"

namespace conclave::train {
namespace {

constexpr int kMutations = 10'000;

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

// One to four small changes: bytes flipped, replaced, removed, inserted or copied, lengths and digits
// changed.
std::string mutate(std::string text, std::mt19937_64& random) {
  static constexpr std::string_view kSpice = "{}[]\",:0123456789-.eE\\u/ \0\xFF\x80tnf";
  const auto below = [&](size_t n) { return n == 0 ? size_t{0} : static_cast<size_t>(random() % n); };
  for (size_t change = below(4) + 1; change > 0; --change) {
    if (text.empty()) return text;
    const size_t at = below(text.size());
    switch (below(7)) {
      case 0:
        text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        text[at] = kSpice[below(kSpice.size())];
        break;
      case 2:
        text.erase(at, below(12) + 1);
        break;
      case 3:
        text.insert(at, 1, kSpice[below(kSpice.size())]);
        break;
      case 4:
        text.insert(at, text.substr(below(text.size()), below(60)));
        break;
      case 5:
        text.resize(at);
        break;
      default: {
        const uint64_t length = below(2) ? random() : below(text.size() + 16);
        std::memcpy(text.data(), &length, std::min<size_t>(8, text.size()));
      }
    }
  }
  return text;
}

TEST(SafetensorsFuzz, OnlyErrorComesOutOfDamagedFilesAndWhatIsAcceptedIsSound) {
  const std::string seed = seed_file();
  ASSERT_NO_THROW(parse_safetensors(bytes_of(seed), "seed"));
  std::mt19937_64 random(20240611);
  int refused = 0;
  for (int i = 0; i < kMutations; ++i) {
    const std::string text = mutate(seed, random);
    try {
      const auto content = parse_safetensors(bytes_of(text), "mutant");
      uint64_t total = 0;
      for (const auto& tensor : content.tensors) {
        std::string problem;
        ASSERT_EQ(tensor_bytes(tensor.dtype, tensor.shape, problem), tensor.bytes.size()) << i;
        ASSERT_TRUE(tensor.bytes.empty() ||
                    (tensor.bytes.data() >= bytes_of(text).data() &&
                     tensor.bytes.data() + tensor.bytes.size() <= bytes_of(text).data() + text.size()));
        total += tensor.bytes.size();
      }
      ASSERT_LE(total, text.size());
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), Error::Kind::kData) << i;
      ++refused;
    }  // any other exception fails the test
  }
  EXPECT_GT(refused, kMutations / 2) << "the mutations do not damage the files";
  EXPECT_LT(refused, kMutations) << "no mutation touched only the data";
}

}  // namespace
}  // namespace conclave::train
