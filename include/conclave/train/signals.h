// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>

namespace conclave::train {

// While it lives, SIGTERM, SIGINT and SIGUSR1 only ask the program to stop: the first of them is remembered,
// and the loop looks at `requested()` wherever it may stop. A second SIGINT ends the process at once, by the
// signal's default action. The destructor puts back the handlers that were there before. Only a program
// constructs it (a library leaves the signals of its host alone), and only once at a time: a second one
// throws Error.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The first signal that came since construction. Safe from any thread.
  std::optional<int> requested() const;
};

// "SIGTERM", "SIGINT", "SIGUSR1"; "signal 31" for others.
std::string signal_name(int signal);

}  // namespace conclave::train
