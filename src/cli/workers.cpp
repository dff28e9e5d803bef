// SPDX-License-Identifier: Apache-2.0
#include "workers.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::cli {

std::string WorkerEnd::text() const {
  return signal ? fmt::format("was killed by signal {} ({})", signal, strsignal(signal))
                : fmt::format("ended with exit code {}", exit_code);
}

LauncherSignals::LauncherSignals() {
  sigemptyset(&waited_);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGUSR1}) sigaddset(&waited_, signal);
  sigprocmask(SIG_BLOCK, &waited_, &before_);
}
LauncherSignals::~LauncherSignals() {
  sigprocmask(SIG_SETMASK, &before_, nullptr);
}

int LauncherSignals::wait(double seconds) const {
  const auto whole = static_cast<time_t>(seconds);
  const timespec time{.tv_sec = whole,
                      .tv_nsec = static_cast<long>((seconds - static_cast<double>(whole)) * 1e9)};
  const int signal = sigtimedwait(&waited_, nullptr, &time);
  return signal > 0 ? signal : 0;
}

namespace {

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    if (!added.count(text.substr(0, text.find('=')))) result.push_back(text);
  }
  for (const auto& [name, value] : added) result.push_back(fmt::format("{}={}", name, value));
  return result;
}

}  // namespace

void Workers::start(const WorkerOptions& options) {
  std::vector<std::string> arguments = {"conclave"};
  arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
  auto environment = merged_environment(options.environment);
  // Everything is prepared here: between fork and exec only plain system calls are allowed.
  const auto argv = pointers(arguments), envp = pointers(environment);
  const std::string log = options.log.string();
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (const int core : options.cores) CPU_SET(static_cast<size_t>(core), &cores);
  const pid_t parent = getpid(), process = fork();
  if (process < 0) throw Error(fmt::format("cannot start a process: {}", std::strerror(errno)));
  if (process == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    if (!log.empty()) {
      const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
      if (file < 0 || dup2(file, STDOUT_FILENO) < 0 || dup2(file, STDERR_FILENO) < 0) _exit(1);
    }
    if (!options.cores.empty()) sched_setaffinity(0, sizeof cores, &cores);
    if (options.socket) fcntl(*options.socket, F_SETFD, 0);
    sigprocmask(SIG_SETMASK, &signals_.before(), nullptr);
    execve("/proc/self/exe", argv.data(), envp.data());
    _exit(127);
  }
  processes_.push_back(process);
  ends_.emplace_back();
}

std::vector<int> Workers::reap() {
  std::vector<int> ended;
  for (size_t i = 0; i < processes_.size(); ++i) {
    int status = 0;
    if (ends_[i] || waitpid(processes_[i], &status, WNOHANG) != processes_[i]) continue;
    ends_[i] = WIFSIGNALED(status) ? WorkerEnd{.signal = WTERMSIG(status)}
                                   : WorkerEnd{.exit_code = WEXITSTATUS(status)};
    ended.push_back(static_cast<int>(i));
  }
  return ended;
}

bool Workers::running() const {
  for (const auto& end : ends_) {
    if (!end) return true;
  }
  return false;
}

void Workers::send(int signal) const {
  for (size_t i = 0; i < processes_.size(); ++i) {
    if (!ends_[i]) kill(processes_[i], signal);
  }
}

Workers::~Workers() {
  send(SIGKILL);
  for (size_t i = 0; i < processes_.size(); ++i) {
    if (!ends_[i]) waitpid(processes_[i], nullptr, 0);
  }
}

}  // namespace conclave::cli
