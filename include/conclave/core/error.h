// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdexcept>
#include <string>

namespace conclave {

// A broken contract: wrong shape, unreadable file, full disk. The message names the values and the remedy.
// Libraries throw it; only the program's `cli` room turns it into an exit code.
class Error : public std::runtime_error {
 public:
  // What kind of failure it was; `cli` maps it to the exit code documented in docs/cli.md.
  enum class Kind { kFailed, kData, kMemory, kCommunication, kDiverged };

  explicit Error(const std::string& message, Kind kind = Kind::kFailed)
      : std::runtime_error(message), kind_(kind) {}

  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

// One or more mistakes in a configuration or on the command line, already rendered with file:line:column,
// caret and remedy (see config/problems.h).
class ConfigError : public std::runtime_error {
 public:
  explicit ConfigError(const std::string& message) : std::runtime_error(message) {}
};

[[noreturn]] void throw_check_failure(const char* file, int line, const char* condition,
                                      const std::string& message);

}  // namespace conclave

// Throws conclave::Error with `message` (a std::string, e.g. from fmt::format) unless `condition` holds.
#define CONCLAVE_CHECK(condition, message)                                                        \
  do {                                                                                            \
    if (!(condition)) ::conclave::throw_check_failure(__FILE__, __LINE__, #condition, (message)); \
  } while (false)
