// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/signals.h"

#include <csignal>
#include <cstdlib>
#include <memory>

#include <gtest/gtest.h>

#include "conclave/core/error.h"

namespace conclave::train {
namespace {

void host_handler(int) {}

void (*handler_of(int signal))(int) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return action.sa_handler;
}

TEST(StopSignals, RemembersTheFirstSignalOnly) {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const StopSignals signals;
    EXPECT_EQ(signals.requested(), std::nullopt);
    std::raise(signal);
    EXPECT_EQ(signals.requested(), signal);
    std::raise(signal == SIGTERM ? SIGUSR1 : SIGTERM);
    EXPECT_EQ(signals.requested(), signal);
  }
}

TEST(StopSignals, HandlersOfTheHostAreBackAfterwards) {
  const auto before = std::signal(SIGUSR1, host_handler);
  const auto terminate = handler_of(SIGTERM), interrupt = handler_of(SIGINT);
  {
    const StopSignals signals;
    EXPECT_NE(handler_of(SIGUSR1), host_handler);
  }
  EXPECT_EQ(handler_of(SIGUSR1), host_handler);
  EXPECT_EQ(handler_of(SIGTERM), terminate);
  EXPECT_EQ(handler_of(SIGINT), interrupt);
  std::signal(SIGUSR1, before);
}

TEST(StopSignals, OnlyOneAtATime) {
  auto signals = std::make_unique<StopSignals>();
  EXPECT_THROW(StopSignals(), Error);
  std::raise(SIGTERM);
  EXPECT_EQ(signals->requested(), SIGTERM) << "the refused one changed nothing";
  signals.reset();
  const StopSignals again;
  EXPECT_EQ(again.requested(), std::nullopt);
}

TEST(StopSignalsDeathTest, ASecondInterruptEndsTheProcessAtOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const StopSignals signals;
        std::raise(SIGINT);
        std::raise(SIGINT);
        std::exit(9);
      },
      testing::KilledBySignal(SIGINT), "");
  EXPECT_EXIT(
      {
        const StopSignals signals;
        std::raise(SIGTERM);
        std::raise(SIGTERM);
        std::raise(SIGINT);
        std::exit(signals.requested() == SIGTERM ? 7 : 9);
      },
      testing::ExitedWithCode(7), "");
}

TEST(StopSignals, NamesForMessages) {
  EXPECT_EQ(signal_name(SIGTERM), "SIGTERM");
  EXPECT_EQ(signal_name(SIGUSR1), "SIGUSR1");
  EXPECT_EQ(signal_name(63), "signal 63");
}

}  // namespace
}  // namespace conclave::train
