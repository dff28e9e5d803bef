// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/signals.h"

#include <array>
#include <atomic>
#include <csignal>
#include <utility>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::train {

namespace {

constexpr std::array<std::pair<int, const char*>, 3> kStopSignals{
    {{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGUSR1, "SIGUSR1"}}};

// A handler has no argument of ours, so what it touches lives here.
std::atomic<bool> stop_signals_installed{false};
std::atomic<int> first_stop_signal{0};
std::atomic<int> interrupts_seen{0};
std::array<struct sigaction, kStopSignals.size()> handlers_before{};
static_assert(std::atomic<int>::is_always_lock_free, "the handler may only touch lock-free atomics");

void remember_stop_signal(int signal) {
  int none = 0;
  first_stop_signal.compare_exchange_strong(none, signal);
  if (signal == SIGINT && interrupts_seen.fetch_add(1) > 0) {
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);  // takes effect when this handler returns
  }
}

}  // namespace

StopSignals::StopSignals() {
  if (stop_signals_installed.exchange(true)) {
    throw Error(
        "StopSignals exists already; a process has one set of signal handlers, pass the first one on");
  }
  first_stop_signal = 0;
  interrupts_seen = 0;
  struct sigaction action {};
  action.sa_handler = remember_stop_signal;
  action.sa_flags = SA_RESTART;  // reads and writes of the host go on
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kStopSignals.size(); ++i) {
    ::sigaction(kStopSignals[i].first, &action, &handlers_before[i]);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kStopSignals.size(); ++i) {
    ::sigaction(kStopSignals[i].first, &handlers_before[i], nullptr);
  }
  stop_signals_installed = false;
}

std::optional<int> StopSignals::requested() const {
  const int signal = first_stop_signal;
  return signal == 0 ? std::nullopt : std::optional(signal);
}

std::string signal_name(int signal) {
  for (const auto& [number, name] : kStopSignals) {
    if (number == signal) return name;
  }
  return fmt::format("signal {}", signal);
}

}  // namespace conclave::train
