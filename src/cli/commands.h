// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdio>
#include <functional>
#include <utility>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "conclave/cli/run.h"
#include "conclave/core/log.h"

// Each subcommand declares itself on the parser and stores in `action` what to do when it is chosen; the
// action returns the exit code.
namespace conclave::cli {

using Action = std::function<int()>;

void add_train(CLI::App& app, const moe::Registry& registry, Action& action);
void add_config(CLI::App& app, const moe::Registry& registry, Action& action);
void add_data(CLI::App& app, const moe::Registry& registry, Action& action);
void add_checkpoint(CLI::App& app, Action& action);
void add_version(CLI::App& app, Action& action);

// To stderr. What cannot be written is lost: a closed terminal costs no run its result.
template <class... Arguments>
void say(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  std::fputs(fmt::format(format, std::forward<Arguments>(arguments)...).c_str(), stderr);
}

// Messages for a person: plain lines on stderr.
Log stderr_log();

}  // namespace conclave::cli
