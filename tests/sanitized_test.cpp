// SPDX-License-Identifier: Apache-2.0
// Part of the sanitized tests only: that the sanitizers are really there.
#include <limits>
#include <memory>

#include <gtest/gtest.h>

namespace {

TEST(SanitizersDeathTest, a_read_past_the_end_and_an_overflow_end_the_process) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  volatile int index = 5;
  EXPECT_DEATH(
      {
        const auto values = std::make_unique<volatile int[]>(5);
        values[0] = values[static_cast<size_t>(index)];
      },
      "heap-buffer-overflow");
  volatile int largest = std::numeric_limits<int>::max();
  EXPECT_DEATH(largest = largest + index, "signed integer overflow");
}

}  // namespace
