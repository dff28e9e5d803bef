// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace conclave::data {

struct CommandResult {
  int status = 0;      // exit status; 128 + n after signal n; -1 when the program cannot be started
  std::string output;  // standard output and standard error together; the system's reason when not started
};

// Runs a program found in PATH, without a shell, in `folder`, with the C locale and nothing on standard
// input.
CommandResult run_command(const std::vector<std::string>& arguments, const std::filesystem::path& folder);

}  // namespace conclave::data
