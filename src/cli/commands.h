// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>

#include <CLI/CLI.hpp>

#include "conclave/cli/run.h"
#include "conclave/core/log.h"
#include "conclave/train/run_config.h"

// Each subcommand declares itself on the parser and stores in `action` what to do when it is chosen; the
// action returns the exit code.
namespace conclave::cli {

using Action = std::function<int()>;

void add_train(CLI::App& app, const moe::Registry& registry, Action& action);
void add_launch(CLI::App& app, Action& action);
void add_generate(CLI::App& app, const moe::Registry& registry, Action& action);
void add_eval(CLI::App& app, const moe::Registry& registry, Action& action);
void add_config(CLI::App& app, const moe::Registry& registry, Action& action);
void add_data(CLI::App& app, const moe::Registry& registry, Action& action);
void add_checkpoint(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_version(CLI::App& app, Action& action);

// Parameters, compute and memory of a configuration in a few lines; nothing is allocated.
std::string describe_model(const train::RunConfig& config, const moe::Registry& registry);

// Versions and machine, for environment.json of a run folder.
std::string environment_json();

// Messages for a person: plain lines on stderr.
Log stderr_log();

}  // namespace conclave::cli
