// SPDX-License-Identifier: Apache-2.0
#include "command.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

#include "conclave/core/error.h"

namespace conclave::data {

namespace {

std::vector<std::string> environment_in_c_locale() {
  std::vector<std::string> result = {"LC_ALL=C"};
  for (char** variable = ::environ; variable && *variable; ++variable) {
    if (!std::string_view(*variable).starts_with("LC_ALL=")) result.emplace_back(*variable);
  }
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::string read_all(int descriptor) {
  std::string output;
  char buffer[4096];
  while (true) {
    const ssize_t count = ::read(descriptor, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return output;
    output.append(buffer, static_cast<size_t>(count));
  }
}

}  // namespace

CommandResult run_command(const std::vector<std::string>& arguments, const std::filesystem::path& folder) {
  int ends[2] = {-1, -1};
  CONCLAVE_CHECK(::pipe2(ends, O_CLOEXEC) == 0, std::string("no pipe: ") + std::strerror(errno));
  std::vector<std::string> argument_texts = arguments, environment_texts = environment_in_c_locale();
  const auto argument_list = pointers(argument_texts), environment = pointers(environment_texts);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
  ::posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  pid_t child = 0;
  const int code =
      ::posix_spawnp(&child, argument_list[0], &actions, nullptr, argument_list.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (code != 0) {
    ::close(ends[0]);
    return {.status = -1, .output = std::strerror(code)};
  }
  CommandResult result;
  result.output = read_all(ends[0]);
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace conclave::data
