// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/masking.h"

#include <gtest/gtest.h>

#include "conclave/data/packing.h"

namespace {

using namespace conclave;
using namespace conclave::data;

// One row: documents of 300 tokens, each begun by the mark; the last 40 positions are padding.
Batch row_of(int64_t length, int64_t first_id) {
  Batch batch = empty_batch(1, length);
  for (int64_t i = 0; i < length; ++i) {
    const auto at = static_cast<size_t>(i);
    batch.global_id[at] = first_id + i;
    if (i >= length - 40) continue;
    batch.token[at] = i % 300 == 0 ? 256 : static_cast<int32_t>((i * 7 + 13) % 256);
    batch.document[at] = static_cast<int32_t>(i / 300);
    batch.target[at] = 0;
  }
  return batch;
}

Batch masked(int64_t length, int64_t first_id, const MaskingOptions& options, const RandomKey& key) {
  Batch batch = row_of(length, first_id);
  mask_tokens(batch, options, *byte_tokenizer(), key);
  return batch;
}

constexpr RandomKey kKey = {.seed = 11, .step = 5};

TEST(Masking, shares_are_those_of_the_options_and_targets_are_the_original_tokens) {
  const int64_t length = 60000;
  const auto plain = row_of(length, 0), hidden = masked(length, 0, {}, kKey);
  int64_t selected = 0, mask = 0, kept = 0, other = 0, eligible = 0;
  for (size_t i = 0; i < plain.token.size(); ++i) {
    eligible += plain.document[i] >= 0 && plain.token[i] != 256;
    if (hidden.target[i] < 0) {
      ASSERT_EQ(hidden.token[i], plain.token[i]) << "an unselected token was changed at " << i;
      continue;
    }
    ++selected;
    ASSERT_EQ(hidden.target[i], plain.token[i]);
    ASSERT_NE(hidden.target[i], 256) << "a document mark was selected";
    ASSERT_GE(hidden.document[i], 0) << "padding was selected";
    ASSERT_NE(hidden.token[i], 256) << "a document mark was drawn";
    mask += hidden.token[i] == 257;
    kept += hidden.token[i] == plain.token[i];
    other += hidden.token[i] != 257 && hidden.token[i] != plain.token[i];
  }
  const auto share = [](int64_t part, int64_t whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  };
  EXPECT_NEAR(share(selected, eligible), 0.15, 0.005);  // more than three standard deviations each
  EXPECT_NEAR(share(mask, selected), 0.8, 0.015);
  EXPECT_NEAR(share(other, selected), 0.1, 0.011);
  EXPECT_NEAR(share(kept, selected), 0.1, 0.011);
  EXPECT_EQ(hidden.num_targets, selected);
  EXPECT_EQ(hidden.num_target_bytes, selected);
  EXPECT_EQ(hidden.num_tokens, length - 40);
}

TEST(Masking, decisions_follow_the_global_id_and_not_the_batch) {
  const auto whole = masked(900, 4000, {.rate = 0.5}, kKey);
  // The same tokens as two rows of another batch.
  Batch parts = empty_batch(2, 450);
  const auto plain = row_of(900, 4000);
  parts.token = plain.token;
  parts.document = plain.document;
  parts.global_id = plain.global_id;
  mask_tokens(parts, {.rate = 0.5}, *byte_tokenizer(), kKey);
  EXPECT_EQ(parts.token, whole.token);
  EXPECT_EQ(parts.target, whole.target);
  EXPECT_NE(masked(900, 4001, {.rate = 0.5}, kKey).target, whole.target);
  EXPECT_NE(masked(900, 4000, {.rate = 0.5}, {.seed = 11, .step = 6}).target, whole.target);
  EXPECT_NE(masked(900, 4000, {.rate = 0.5}, {.seed = 12, .step = 5}).target, whole.target);
}

TEST(Masking, extreme_shares_and_an_all_padding_batch_are_defined) {
  const auto all = masked(340, 0, {.rate = 1, .mask_fraction = 1, .random_fraction = 0}, kKey);
  EXPECT_EQ(all.num_targets, 299);
  EXPECT_EQ(all.token[1], 257);
  EXPECT_EQ(all.token[0], 256);
  const auto kept = masked(340, 0, {.rate = 1, .mask_fraction = 0, .random_fraction = 0}, kKey);
  EXPECT_EQ(kept.token, row_of(340, 0).token);
  EXPECT_EQ(masked(40, 0, {.rate = 1}, kKey).num_targets, 0);
}

}  // namespace
