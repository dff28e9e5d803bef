// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "conclave/optim/optimizer.h"

using conclave::optim::LrSchedulerOptions;
using conclave::optim::ScheduleType;

TEST(LearningRate, every_schedule_warms_up_to_the_peak_and_ends_where_it_says) {
  for (const auto type : {ScheduleType::kLinear, ScheduleType::kCosine, ScheduleType::kWsd}) {
    const LrSchedulerOptions options{.type = type, .warmup_fraction = 0.1, .min_lr = 0.01};
    EXPECT_NEAR(options.at(0.05, 1.0), 0.5, 1e-12);
    EXPECT_NEAR(options.at(0.1, 1.0), 1.0, 1e-12);
    EXPECT_NEAR(options.at(1.0, 1.0), 0.01, 1e-12);
    EXPECT_NEAR(options.at(7.0, 1.0), 0.01, 1e-12);
  }
  EXPECT_EQ((LrSchedulerOptions{.type = ScheduleType::kConstant, .warmup_fraction = 0.0}.at(0.7, 2.0)), 2.0);
}

TEST(LearningRate, shapes_in_the_middle) {
  EXPECT_NEAR((LrSchedulerOptions{.type = ScheduleType::kCosine, .warmup_fraction = 0.0}.at(0.5, 1.0)), 0.5,
              1e-12);
  EXPECT_NEAR((LrSchedulerOptions{.type = ScheduleType::kWsd, .warmup_fraction = 0.0}.at(0.9, 1.0)), 0.5,
              1e-12);
  EXPECT_NEAR((LrSchedulerOptions{.type = ScheduleType::kWsd, .warmup_fraction = 0.0}.at(0.5, 1.0)), 1.0,
              1e-12);
  EXPECT_NEAR((LrSchedulerOptions{.type = ScheduleType::kInverseSqrt, .warmup_fraction = 0.04}.at(0.16, 1.0)),
              0.5, 1e-12);
  EXPECT_EQ((LrSchedulerOptions{.warmup_fraction = 1.0}.at(1.0, 1.0)), 0.0);
}
