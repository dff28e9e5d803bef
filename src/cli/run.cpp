// SPDX-License-Identifier: Apache-2.0
#include "conclave/cli/run.h"

#include <unistd.h>
#include <new>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/cli/status_line.h"
#include "conclave/cli/streams.h"
#include "conclave/config/problems.h"
#include "conclave/core/error.h"

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

int fail(int code, const std::string& message) {
  write_quietly(STDERR_FILENO, fmt::format("conclave: {}\n", message));
  return code;
}

// CLI11 answers an unknown subcommand with "a subcommand is required"; say which one was meant.
std::string unknown_subcommand(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return "";
  std::vector<std::string> known;
  for (const auto* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (sub->get_name() == argv[1]) return "";
    known.push_back(sub->get_name());
  }
  return config::unknown_name("command", argv[1], known);
}

}  // namespace

int run(int argc, char** argv, const moe::Registry& registry) {
  reserve_standard_streams();
  CLI::App app{"Trains Mixture-of-Experts language models from YAML files.", "conclave"};
  app.require_subcommand(1);
  Action action;
  add_train(app, registry, action);
  add_generate(app, registry, action);
  add_eval(app, registry, action);
  add_config(app, registry, action);
  add_data(app, registry, action);
  add_checkpoint(app, action);
  add_report(app, action);
  add_doctor(app, action);
  add_version(app, action);
  try {
    if (const auto message = unknown_subcommand(app, argc, argv); !message.empty())
      return fail(kUsage, message);
    app.parse(argc, argv);
    const int code = action();
    finish_standard_output();
    return code;
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? kDone : kUsage;
  } catch (const ConfigError& error) {
    write_quietly(STDERR_FILENO, fmt::format("{}\n", error.what()));
    return kUsage;
  } catch (const Error& error) {
    return fail(exit_code(error.kind()), error.what());
  } catch (const std::bad_alloc&) {
    return fail(kOutOfMemory, "out of memory; lower training.micro_batch_size or data.seq_length");
  } catch (const std::exception& error) {
    return fail(kFailed, error.what());
  }
}

}  // namespace conclave::cli
