// SPDX-License-Identifier: Apache-2.0
#include "conclave/cli/run.h"

#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "conclave/cli/status_line.h"
#include "conclave/cli/streams.h"
#include "conclave/config/problems.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/cuda/install.h"

namespace conclave::cli {

Log stderr_log() {
  return Log([](LogLevel level, const std::string& message) {
    const char* prefix = level == LogLevel::kInfo      ? ""
                         : level == LogLevel::kWarning ? "warning: "
                                                       : "error: ";
    write_quietly(STDERR_FILENO, fmt::format("{}{}\n", prefix, message));
  });
}

namespace {

int exit_code(Error::Kind kind) {
  switch (kind) {
    case Error::Kind::kData:
      return kBadData;
    case Error::Kind::kMemory:
      return kOutOfMemory;
    case Error::Kind::kCommunication:
      return kCommunication;
    case Error::Kind::kDiverged:
      return kDiverged;
    case Error::Kind::kFailed:
      break;
  }
  return kFailed;
}

// Tells the launcher why, in the form that torchrun reads.
void write_error_file(const std::string& message) {
  const char* file = std::getenv("TORCHELASTIC_ERROR_FILE");
  if (!file || !*file) return;
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
  const nlohmann::json json = {
      {"message",
       {{"message", message},
        {"extraInfo", {{"py_callstack", ""}, {"timestamp", std::to_string(seconds.count())}}}}}};
  try {
    write_file_atomically(file, json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } catch (const std::exception& error) {
    write_quietly(STDERR_FILENO, fmt::format("warning: {}\n", error.what()));
  }
}

int fail(int code, const std::string& message) {
  write_error_file(message);
  write_quietly(STDERR_FILENO, fmt::format("conclave: {}\n", message));
  return code;
}

// CLI11 answers a misspelt command with "a subcommand is required" and a misspelt option with "not expected";
// say which one was meant. "" when there is none.
std::string misspelt(const CLI::App& app, int argc, char** argv) {
  const CLI::App* command = &app;
  const auto commands = [&] { return command->get_subcommands([](const CLI::App*) { return true; }); };
  int i = 1;
  for (; i < argc && argv[i][0] != '-' && !commands().empty(); ++i) {
    std::vector<std::string> known;
    const CLI::App* next = nullptr;
    for (const auto* sub : commands()) {
      known.push_back(sub->get_name());
      if (known.back() == argv[i]) next = sub;
    }
    if (!next) return config::unknown_name("command", argv[i], known);
    command = next;
  }
  if (command->get_prefix_command()) return "";  // the options behind it are another command's
  std::vector<std::string> options;
  for (const auto* option : command->get_options()) {
    for (const auto& name : option->get_lnames()) options.push_back("--" + name);
  }
  for (; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    const std::string word = std::string(argv[i]).substr(0, std::string_view(argv[i]).find('='));
    if (word.rfind("--", 0) != 0 || std::find(options.begin(), options.end(), word) != options.end())
      continue;
    return config::unknown_name("option", word, options);
  }
  return "";
}

}  // namespace

int run(int argc, char** argv, const moe::Registry& registry) {
  reserve_standard_streams();
  cuda::offer();
  const BrokenPipesAreErrors pipes;
  CLI::App app{"Trains Mixture-of-Experts language models from YAML files.", "conclave"};
  app.require_subcommand(1);
  Action action;
  add_train(app, registry, action);
  add_launch(app, action);
  add_generate(app, registry, action);
  add_eval(app, registry, action);
  add_config(app, registry, action);
  add_data(app, registry, action);
  add_checkpoint(app, action);
  add_report(app, action);
  add_doctor(app, action);
  add_version(app, action);
  try {
    if (const auto message = misspelt(app, argc, argv); !message.empty()) return fail(kUsage, message);
    app.parse(argc, argv);
    const int code = action();
    finish_standard_output();
    return code;
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? kDone : kUsage;
  } catch (const ConfigError& error) {
    write_error_file(error.what());
    write_quietly(STDERR_FILENO, fmt::format("{}\n", error.what()));
    return kUsage;
  } catch (const Error& error) {
    return fail(exit_code(error.kind()), error.what());
  } catch (const std::bad_alloc&) {
    return fail(kOutOfMemory, "out of memory; lower training.micro_batch_size or data.seq_length");
  } catch (const std::exception& error) {
    const char* lost = std::ferror(stdout) ? "the output was not written whole to standard output: " : "";
    return fail(kFailed, fmt::format("{}{}", lost, error.what()));
  }
}

}  // namespace conclave::cli
