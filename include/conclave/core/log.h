// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <string>

namespace conclave {

enum class LogLevel { kInfo, kWarning, kError };

// Where messages for a person go. The library writes nothing by itself: the default sink drops messages, a
// program installs its own (the `conclave` program writes to stderr through spdlog). Passed by value; copies
// share the sink.
class Log {
 public:
  using Sink = std::function<void(LogLevel, const std::string&)>;

  Log() = default;
  explicit Log(Sink sink) : sink_(std::move(sink)) {}

  void info(const std::string& message) const { write(LogLevel::kInfo, message); }
  void warn(const std::string& message) const { write(LogLevel::kWarning, message); }
  void error(const std::string& message) const { write(LogLevel::kError, message); }

 private:
  void write(LogLevel level, const std::string& message) const {
    if (sink_) sink_(level, message);
  }
  Sink sink_;
};

}  // namespace conclave
