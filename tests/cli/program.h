// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/types.h>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "train/temporary_folder.h"

// Runs the real program (CONCLAVE_BIN) as a process of its own.
namespace conclave::cli_tests {

// As docs/cli.md promises them.
inline constexpr int kDone = 0, kFailed = 1, kUsage = 2, kBadData = 3;

struct ProgramOptions {
  std::filesystem::path folder = {};                    // current folder; empty: ours
  std::map<std::string, std::string> environment = {};  // added to ours
  std::optional<uint64_t> file_size_limit = {};         // bytes; a write beyond fails instead of killing
  std::function<void()> before_exec = [] {};            // in the child: rearrange descriptors
};

struct Ended {
  int exit_code = -1;  // -1: killed by `signal`
  int signal = 0;
  std::string out = {}, err = {};
};

// A started program. Its output goes to files, so that it never waits for a reader.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments, const ProgramOptions& options = {});
  ~Program();  // kills what still runs
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  bool running();
  pid_t id() const { return process_; }
  void send(int signal) const;
  Ended wait();
  std::string err() const;  // so far
  // Looks at `condition` until it holds; false if the program ended before, or after a minute.
  bool wait_until(const std::function<bool()>& condition);

 private:
  train::TemporaryFolder folder_;
  pid_t process_ = -1;
  std::optional<int> status_;
};

Ended run_program(const std::vector<std::string>& arguments, const ProgramOptions& options = {});

}  // namespace conclave::cli_tests
