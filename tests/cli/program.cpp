// SPDX-License-Identifier: Apache-2.0
#include "program.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <stdexcept>

#include "conclave/core/files.h"

namespace conclave::cli_tests {

namespace {

constexpr auto kPatience = std::chrono::seconds(60);

std::string program_path() {
  const char* path = std::getenv("CONCLAVE_BIN");
  if (!path || !*path) throw std::runtime_error("CONCLAVE_BIN does not name the program; run through ctest");
  return path;
}

void to_file(int descriptor, const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file < 0 || ::dup2(file, descriptor) < 0) ::_exit(126);
  ::close(file);
}

[[noreturn]] void become(const std::string& path, std::vector<char*>& arguments,
                         const ProgramOptions& options) {
  if (options.file_size_limit) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = *options.file_size_limit, .rlim_max = *options.file_size_limit};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(126);
  }
  if (!options.folder.empty() && ::chdir(options.folder.c_str()) != 0) ::_exit(126);
  for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
  options.before_exec();
  ::execv(path.c_str(), arguments.data());
  ::_exit(126);
}

}  // namespace

Program::Program(const std::vector<std::string>& arguments, const ProgramOptions& options) {
  std::vector<std::string> words{program_path()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  process_ = ::fork();
  if (process_ < 0) throw std::runtime_error("cannot start a process");
  if (process_ == 0) {
    to_file(STDOUT_FILENO, folder_ / "out");
    to_file(STDERR_FILENO, folder_ / "err");
    become(words[0], pointers, options);
  }
}

Program::~Program() {
  if (!running()) return;
  send(SIGKILL);
  wait();
}

bool Program::running() {
  int status = 0;
  if (!status_ && ::waitpid(process_, &status, WNOHANG) == process_) status_ = status;
  return !status_;
}

void Program::send(int signal) const {
  ::kill(process_, signal);
}

Ended Program::wait() {
  int status = 0;
  if (!status_ && ::waitpid(process_, &status, 0) == process_) status_ = status;
  const auto text = [&](const char* name) {
    const auto path = folder_ / name;
    return std::filesystem::exists(path) ? read_file(path) : std::string();
  };
  Ended ended{.out = text("out"), .err = text("err")};
  const int ending = status_.value();
  if (WIFEXITED(ending)) ended.exit_code = WEXITSTATUS(ending);
  if (WIFSIGNALED(ending)) ended.signal = WTERMSIG(ending);
  return ended;
}

std::string Program::err() const {
  const auto path = folder_ / "err";
  return std::filesystem::exists(path) ? read_file(path) : "";
}

bool Program::wait_until(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    if (!running()) return condition();
    ::usleep(300);
  }
  return false;
}

Ended run_program(const std::vector<std::string>& arguments, const ProgramOptions& options) {
  return Program(arguments, options).wait();
}

}  // namespace conclave::cli_tests
