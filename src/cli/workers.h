// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/types.h>
#include <csignal>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

// The processes of `conclave launch`.
namespace conclave::cli {

struct WorkerOptions {
  std::vector<std::string> arguments = {};              // of the program that runs now
  std::map<std::string, std::string> environment = {};  // added to ours
  std::filesystem::path log = {};                       // takes both outputs; empty: ours
  std::vector<int> cores = {};                          // that it may use; empty: all of ours
  std::optional<int> socket = {};                       // a descriptor that it inherits
};

// How a process ended.
struct WorkerEnd {
  int exit_code = 0;
  int signal = 0;  // that killed it; 0: none
  bool failed() const { return exit_code != 0 || signal != 0; }
  std::string text() const;  // "ended with exit code 3", "was killed by signal 9 (Killed)"
};

// Blocks the signals that a launcher waits for, before the first worker is started; workers get the mask of
// before. Restored at the end.
class LauncherSignals {
 public:
  LauncherSignals();
  ~LauncherSignals();
  LauncherSignals(const LauncherSignals&) = delete;
  LauncherSignals& operator=(const LauncherSignals&) = delete;
  // The next of SIGCHLD, SIGINT, SIGTERM and SIGUSR1, or 0 after that many seconds.
  int wait(double seconds) const;
  const sigset_t& before() const { return before_; }

 private:
  sigset_t waited_ = {}, before_ = {};
};

// Several processes, numbered from 0, each the leader of a process group of its own. Those that still run
// when this ends, or when the launcher dies, are stopped.
class Workers {
 public:
  explicit Workers(const LauncherSignals& signals) : signals_(signals) {}
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Throws Error when the process cannot be made.
  void start(const WorkerOptions& options);
  // The processes that ended since the last call, by number.
  std::vector<int> reap();
  bool running() const;
  // To all that run.
  void send(int signal) const;
  // The end of a process; nothing while it runs.
  const std::vector<std::optional<WorkerEnd>>& ends() const { return ends_; }

 private:
  const LauncherSignals& signals_;
  std::vector<pid_t> processes_;
  std::vector<std::optional<WorkerEnd>> ends_;
};

}  // namespace conclave::cli
