// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "fuzz/laws.h"
#include "fuzz/mutate.h"

namespace conclave::train {
namespace {

constexpr const char* kMetrics = R"({"step":1,"time":1700000003.25,"train/loss":5.5,"train/lr":0.0003}
{"step":2,"time":1700000004,"train/loss":5.25,"train/lr":0.0006}
{"step":2,"time":1700000004.5,"valid/loss":5.375}
{"step":3,"time":1700000005,"train/loss":null,"train/lr":1e-05}
{"step":12,"time":1700000006,"train/loss":-2.5e-3,"train/lr":0.1}
)";

TEST(MetricsMutations, only_bad_data_comes_out_of_damaged_lines_and_a_rewind_keeps_what_it_should) {
  ASSERT_TRUE(fuzz::metrics_law(kMetrics));
  std::mt19937_64 random(20240617);
  int accepted = 0;
  for (int i = 0; i < fuzz::kMutations; ++i) {
    const std::string text = fuzz::mutated(kMetrics, "{}[]\",:0123456789-.eE\\u/ tnfl\n\xFF", random);
    try {
      accepted += fuzz::metrics_law(text);
    } catch (const std::exception& error) {
      FAIL() << "round " << i << ": " << error.what() << "\n" << text;
    }
  }
  EXPECT_GT(accepted, fuzz::kMutations / 50);
  EXPECT_LT(accepted, fuzz::kMutations / 2);
}

}  // namespace
}  // namespace conclave::train
