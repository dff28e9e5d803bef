// SPDX-License-Identifier: Apache-2.0
#include "conclave/core/random.h"

#include <gtest/gtest.h>

using conclave::philox4x32;
using conclave::RandomKey;
using conclave::RandomStream;

TEST(Random, philox_gives_the_published_vector_for_zero_counter_and_key) {
  const std::array<uint32_t, 4> want{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), want);
}

TEST(Random, streams_layers_steps_and_units_do_not_share_numbers) {
  const RandomKey key{.seed = 7, .step = 3}, next{.seed = 7, .step = 4};
  const double base = key.uniform(RandomStream::kRouterJitter, 2, 11);
  EXPECT_EQ(base, key.uniform(RandomStream::kRouterJitter, 2, 11));
  EXPECT_NE(base, key.uniform(RandomStream::kRouterNoise, 2, 11));
  EXPECT_NE(base, key.uniform(RandomStream::kRouterJitter, 3, 11));
  EXPECT_NE(base, key.uniform(RandomStream::kRouterJitter, 2, 12));
  EXPECT_NE(base, next.uniform(RandomStream::kRouterJitter, 2, 11));
}

TEST(Random, normal_has_mean_zero_and_variance_one) {
  const RandomKey key{.seed = 5};
  double sum = 0, squares = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = key.normal(RandomStream::kInit, 0, static_cast<uint64_t>(i));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.03);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.04);
}
