// SPDX-License-Identifier: Apache-2.0
#include "conclave/cli/status_line.h"

#include <unistd.h>
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

namespace {

using namespace conclave;
using namespace conclave::cli;

train::StepReport example() {
  return {.step = 120,
          .num_steps = 2000,
          .progress = 0.06,
          .loss = 2.34567,
          .bits_per_byte = 3.38412,
          .lr = 1.5e-3,
          .gradient_norm = 0.8123,
          .tokens_per_second = 12345.6,
          .seconds_left = 301,
          .load_max_over_mean = 1.231};
}

std::string without_colours(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\033') {
      while (text[i] != 'm') ++i;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

TEST(StatusText, SaysEverythingWhereThereIsRoom) {
  EXPECT_EQ(status_text(example(), 0, false),
            "step 120/2000 | loss 2.3457 | 3.384 bits/byte | lr 1.50e-03 | grad norm 0.81 | 12.3k tok/s | "
            "load max/mean 1.23 | 5m01s left");
}

TEST(StatusText, MfuIsThereWithAPeakOnly) {
  auto report = example();
  EXPECT_EQ(status_text(report, 0, false).find("MFU"), std::string::npos);
  report.mfu = 0.24691;
  EXPECT_NE(status_text(report, 0, false).find("MFU 24.7%"), std::string::npos);
}

TEST(StatusText, NeverWiderThanTheTerminalAndTheMostImportantStays) {
  for (size_t width = 1; width < 140; ++width) {
    auto report = example();
    report.mfu = 0.5;
    const auto plain = status_text(report, width, false);
    EXPECT_LE(plain.size(), width);
    EXPECT_EQ(without_colours(status_text(report, width, true)), plain);
    EXPECT_EQ(plain.find('\033'), std::string::npos);
  }
  EXPECT_EQ(status_text(example(), 40, false), "step 120/2000 | loss 2.3457 | 5m01s left");
  EXPECT_EQ(status_text(example(), 5, false), "step ");
}

TEST(StatusText, DenseModelsHaveNoLoadAndSkippedStepsAreTold) {
  auto report = example();
  report.load_max_over_mean = 0;
  report.skipped = true;
  report.loss = NAN;
  const auto text = status_text(report, 0, false);
  EXPECT_EQ(text.find("load"), std::string::npos);
  EXPECT_NE(text.find("SKIPPED"), std::string::npos);
  EXPECT_NE(text.find("loss nan"), std::string::npos);
}

TEST(StatusText, Clock) {
  EXPECT_EQ(clock_text(41.9), "41s");
  EXPECT_EQ(clock_text(318), "5m18s");
  EXPECT_EQ(clock_text(11040), "3h04m");
  EXPECT_EQ(clock_text(-1), "?");
  EXPECT_EQ(clock_text(NAN), "?");
  EXPECT_EQ(clock_text(INFINITY), "?");
}

TEST(StatusLine, PipedOutputIsPlainLinesEveryInterval) {
  std::string out;
  {
    StatusLine line({}, 10, [&](std::string_view text) { out += text; });
    auto report = example();
    for (report.step = 1; report.step <= 25; ++report.step) line.step(report);
    line.evaluation(25, {.loss = 2.5, .bits_per_byte = 3.5, .targets = 9, .bytes = 8});
  }
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 4);  // steps 1, 10, 20 and the evaluation
  EXPECT_EQ(out.find('\r'), std::string::npos);
  EXPECT_EQ(out.find('\033'), std::string::npos);
  EXPECT_EQ(out.rfind("step 25 | held-out: loss 2.5000, 3.5000 bits/byte over 8 bytes\n"), out.size() - 63);
}

TEST(StatusLine, ATerminalHasOneLineThatMessagesGoAbove) {
  std::string out;
  const Terminal terminal{.live = true, .colour = false, .width = [] { return size_t{30}; }};
  {
    StatusLine line(terminal, 10, [&](std::string_view text) { out += text; });
    line.message("before");
    EXPECT_EQ(out, "before\n");
    out.clear();
    line.step(example());
    EXPECT_EQ(out, "\r\033[Kstep 120/2000 | loss 2.3457");
    out.clear();
    line.message("warning");
    EXPECT_EQ(out, "\r\033[Kwarning\nstep 120/2000 | loss 2.3457");
    out.clear();
  }
  EXPECT_EQ(out, "\r\033[Kstep 120/2000 | loss 2.3457\n") << "the last state stays, with its end of line";
}

TEST(StatusLine, APipeIsNoTerminalAndWritingToAClosedDescriptorIsHarmless) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const auto terminal = inspect_terminal(pipe_ends[1]);
  EXPECT_FALSE(terminal.live);
  EXPECT_FALSE(terminal.colour);
  EXPECT_EQ(terminal.width(), 0u);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  write_quietly(pipe_ends[1], "nobody");
}

}  // namespace
