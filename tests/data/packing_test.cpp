// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/packing.h"

#include "data/helpers.h"

namespace conclave::data {
namespace {

constexpr int32_t kMark = 256;

struct Example {
  TestFolder folder;
  std::vector<std::string> texts = {"abcdefghij", "k",  "lmnopq", "rstuvwxyzABCDEFGHIJKLMNOPQRSTUV",
                                    "WX",         "YZ0"};
  DocumentSet documents() const {
    std::string lines;
    for (size_t i = 0; i < texts.size(); ++i) {
      lines += "{\"text\":\"" + texts[i] + "\",\"topic\":\"t" + std::to_string(i % 2) + "\"}\n";
    }
    const TokenSource source = {.name = "in",
                                .files = find_files(folder.write("in.jsonl", lines).string()),
                                .options = {.label_field = "topic"}};
    return DocumentSet(open_tokens(source, *byte_tokenizer(), folder.path() / "tokens", Log()),
                       {0, 1, 2, 3, 4, 5}, {5, 3});
  }
};

// One token as the definition has it, without any window.
struct Expected {
  int32_t token, target, domain;
  int64_t document, offset;
};

std::vector<Expected> whole_stream(const std::vector<std::string>& texts) {
  std::vector<Expected> all;
  for (size_t d = 0; d < texts.size(); ++d) {
    std::vector<int32_t> ids = {kMark};
    for (const char c : texts[d]) ids.push_back(c);
    for (size_t k = 0; k < ids.size(); ++k) {
      const int32_t target = k + 1 < ids.size() ? ids[k + 1] : kMark;
      all.push_back({ids[k], target, d % 2 == 0 ? 5 : 3, static_cast<int64_t>(d), static_cast<int64_t>(k)});
    }
  }
  return all;
}

void expect_token(const Batch& batch, int64_t column, const Expected& e, int64_t document, int64_t position) {
  const auto i = static_cast<size_t>(column);
  EXPECT_EQ(batch.token[i], e.token);
  EXPECT_EQ(batch.target[i], e.target);
  EXPECT_EQ(batch.domain[i], e.domain);
  EXPECT_EQ(batch.document[i], document);
  EXPECT_EQ(batch.position[i], position);
}

void expect_padding(const Batch& batch, int64_t column) {
  const auto i = static_cast<size_t>(column);
  EXPECT_EQ(batch.token[i], 0);
  EXPECT_EQ(batch.target[i], -1);
  EXPECT_EQ(batch.document[i], -1);
  EXPECT_EQ(batch.domain[i], -1);
}

TEST(ConcatPacking, EqualsThePlainLoopForEverySequenceLength) {
  const Example example;
  const auto stream = whole_stream(example.texts);
  for (int64_t length = 1; length <= 70; ++length) {
    const auto packer = make_packer(Packing::kConcat, example.documents(), length, kMark);
    size_t at = 0;
    for (int64_t w = 0; w < packer->num_windows(); ++w) {
      Batch row = empty_batch(1, length);
      packer->fill(w, 0, row);
      int64_t document = -1, position = 0, in_window = 0;
      for (int64_t column = 0; column < length; ++column) {
        if (at == stream.size()) {
          expect_padding(row, column);
          continue;
        }
        const bool starts = column == 0 || stream[at].offset == 0;
        document += starts ? 1 : 0;
        position = starts ? 0 : position + 1;
        expect_token(row, column, stream[at++], document, position);
        ++in_window;
      }
      EXPECT_EQ(packer->num_tokens(w), in_window);
      if (::testing::Test::HasFailure()) FAIL() << "length " << length << " window " << w;
    }
    EXPECT_EQ(at, stream.size()) << "length " << length;
  }
}

TEST(SeparatePacking, EqualsThePlainLoopForEverySequenceLength) {
  const Example example;
  const auto stream = whole_stream(example.texts);
  for (int64_t length = 1; length <= 40; ++length) {
    const auto packer = make_packer(Packing::kNone, example.documents(), length, kMark);
    size_t at = 0;
    for (int64_t w = 0; w < packer->num_windows(); ++w) {
      Batch row = empty_batch(1, length);
      packer->fill(w, 0, row);
      const int64_t document = stream[at].document;
      int64_t in_window = 0;
      for (int64_t column = 0; column < length; ++column) {
        if (at < stream.size() && stream[at].document == document) {
          EXPECT_EQ(stream[at].offset % length, column);
          expect_token(row, column, stream[at++], 0, column);
          ++in_window;
        } else {
          expect_padding(row, column);
        }
      }
      EXPECT_EQ(packer->num_tokens(w), in_window);
      if (::testing::Test::HasFailure()) FAIL() << "length " << length << " window " << w;
    }
    EXPECT_EQ(at, stream.size()) << "length " << length;
  }
}

TEST(Packing, BothLayoutsHaveTheSameTargets) {
  const Example example;
  std::vector<std::pair<int32_t, int32_t>> pairs[2];
  int64_t bytes[2] = {0, 0}, targets[2] = {0, 0};
  for (const auto packing : {Packing::kConcat, Packing::kNone}) {
    const auto k = static_cast<size_t>(packing);
    const auto packer = make_packer(packing, example.documents(), 7, kMark);
    for (int64_t w = 0; w < packer->num_windows(); ++w) {
      Batch row = empty_batch(1, 7);
      packer->fill(w, 0, row);
      count_tokens(row, *byte_tokenizer());
      EXPECT_EQ(row.num_tokens, packer->num_tokens(w));
      bytes[k] += row.num_target_bytes;
      targets[k] += row.num_targets;
      for (size_t i = 0; i < 7; ++i) {
        if (row.target[i] >= 0) pairs[k].push_back({row.token[i], row.target[i]});
      }
    }
  }
  EXPECT_EQ(pairs[0], pairs[1]);
  size_t text_bytes = 0;
  for (const auto& text : Example().texts) text_bytes += text.size();
  EXPECT_EQ(bytes[0], static_cast<int64_t>(text_bytes));  // marks are predicted, but are no bytes
  EXPECT_EQ(targets[0], static_cast<int64_t>(text_bytes + Example().texts.size()));
  EXPECT_EQ(bytes[1], bytes[0]);
}

TEST(Packing, OtherRowsStayUntouched) {
  const Example example;
  const auto packer = make_packer(Packing::kConcat, example.documents(), 11, kMark);
  Batch batch = empty_batch(3, 11);
  packer->fill(1, 1, batch);
  for (int64_t column = 0; column < 11; ++column) {
    expect_padding(batch, column);
    expect_padding(batch, 22 + column);
  }
  expect_contains(error_of([&] { packer->fill(0, 3, batch); }), {"row 3 of 3"});
}

TEST(Packing, AnEmptySelectionHasNoWindow) {
  const Example example;
  const auto none = example.documents().selected({});
  EXPECT_EQ(make_packer(Packing::kConcat, none, 5, kMark)->num_windows(), 0);
  EXPECT_EQ(make_packer(Packing::kNone, none, 5, kMark)->num_windows(), 0);
}

}  // namespace
}  // namespace conclave::data
