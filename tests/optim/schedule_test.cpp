// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

#include "conclave/optim/optimizer.h"

using conclave::optim::LrSchedulerOptions;
using conclave::optim::RunPosition;
using conclave::optim::ScheduleType;

namespace {

constexpr ScheduleType kAll[] = {ScheduleType::kConstant, ScheduleType::kLinear, ScheduleType::kCosine,
                                 ScheduleType::kWsd, ScheduleType::kInverseSqrt};

// The formulas of optimizer.h, written once more and independently: step n of N, warm-up of W steps.
double reference(ScheduleType type, double n, double N, double W, double peak, double min, double decay) {
  if (n < W) return peak * n / W;
  const double left = W < N ? (N - n) / (N - W) : 0.0;
  if (type == ScheduleType::kConstant) return peak;
  if (type == ScheduleType::kLinear) return peak * left + min * (1 - left);
  if (type == ScheduleType::kCosine)
    return min + (peak - min) * std::pow(std::cos(std::numbers::pi / 2 * (1 - left)), 2);
  if (type == ScheduleType::kWsd) {
    const double decay_steps = decay * N;
    return N - n >= decay_steps ? peak : min + (peak - min) * (N - n) / decay_steps;
  }
  const double start = std::max(W, 0.01 * N);
  return std::max(min, n <= start ? peak : peak / std::sqrt(n / start));
}

TEST(LearningRate, every_schedule_equals_its_formula_at_every_step) {
  const int64_t steps = 97;
  for (const auto type : kAll) {
    for (const int64_t warmup : {0, 1, 13, 97}) {
      const double fraction = static_cast<double>(warmup) / static_cast<double>(steps);
      const LrSchedulerOptions by_fraction{
          .type = type, .warmup_fraction = fraction, .min_lr = 0.0007, .decay_fraction = 0.3};
      auto by_steps = by_fraction;
      by_steps.warmup_fraction = 0.5;  // replaced
      by_steps.warmup_iters = warmup;
      for (int64_t step = 1; step <= steps; ++step) {
        const double progress = static_cast<double>(step) / static_cast<double>(steps);
        const double want = reference(type, static_cast<double>(step), static_cast<double>(steps),
                                      static_cast<double>(warmup), 0.03, 0.0007, 0.3);
        const RunPosition position{.progress = progress, .step = step, .num_steps = steps};
        EXPECT_NEAR(by_fraction.at(progress, 0.03), want, 1e-9 * 0.03) << warmup << " " << step;
        EXPECT_NEAR(by_fraction.at(position, 0.03), want, 1e-9 * 0.03) << warmup << " " << step;
        EXPECT_NEAR(by_steps.at(position, 0.03), want, 1e-9 * 0.03) << warmup << " " << step;
      }
    }
  }
}

TEST(LearningRate, the_end_is_the_minimum_and_stays_it) {
  for (const auto type : {ScheduleType::kLinear, ScheduleType::kCosine, ScheduleType::kWsd}) {
    const LrSchedulerOptions options{.type = type, .warmup_fraction = 0.1, .min_lr = 0.01};
    EXPECT_NEAR(options.at(0.05, 1.0), 0.5, 1e-12);
    EXPECT_NEAR(options.at(0.1, 1.0), 1.0, 1e-12);
    EXPECT_NEAR(options.at(1.0, 1.0), 0.01, 1e-12);
    EXPECT_NEAR(options.at(7.0, 1.0), 0.01, 1e-12);
  }
}

TEST(LearningRate, a_warm_up_in_steps_keeps_its_length_when_the_clock_runs_ahead) {
  const LrSchedulerOptions options{.type = ScheduleType::kLinear, .warmup_iters = 10};
  // After 5 of 1000 steps half of the time is gone.
  const RunPosition position{.progress = 0.5, .step = 5, .num_steps = 1000};
  const double shape = 1.0 - (0.5 - 0.01) / 0.99;
  EXPECT_NEAR(options.at(position, 1.0), 0.5 * shape, 1e-12);
  EXPECT_NEAR(options.at(RunPosition{.progress = 1.0, .step = 12, .num_steps = 1000}, 1.0), 0.0, 1e-12);
}

TEST(LearningRate, warm_ups_of_no_length_and_of_the_whole_run_are_defined) {
  for (const auto type : kAll) {
    for (const double fraction : {0.0, 1.0}) {
      const LrSchedulerOptions options{.type = type, .warmup_fraction = fraction};
      for (const double progress : {0.0, 0.3, 1.0}) EXPECT_TRUE(std::isfinite(options.at(progress, 1.0)));
    }
    const LrSchedulerOptions none{.type = type, .warmup_iters = 0};
    EXPECT_TRUE(std::isfinite(none.at(RunPosition{.progress = 0.0, .step = 0, .num_steps = 0}, 1.0)));
  }
}

}  // namespace
