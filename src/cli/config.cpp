// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/config/describe.h"
#include "conclave/train/run_config.h"

namespace conclave::cli {

namespace {

struct ConfigArguments {
  std::string file, key;
  std::vector<std::string> overrides;
};

std::function<void(config::Fields&)> declaration(const std::shared_ptr<train::RunConfig>& config) {
  return [config](config::Fields& f) { config->fields(f); };
}

}  // namespace

void add_config(CLI::App& app, const moe::Registry& registry, Action& action) {
  auto* sub = app.add_subcommand("config", "Check, print and explain configuration files.");
  sub->require_subcommand(1);
  auto arguments = std::make_shared<ConfigArguments>();
  const auto add = [&](const char* name, const char* doc, std::function<int()> body) {
    auto* command = sub->add_subcommand(name, doc);
    command->callback([&action, body] { action = body; });
    return command;
  };
  const auto with_file = [&](CLI::App* command) {
    command->add_option("file", arguments->file, "Configuration file.")->required();
    command->add_option("overrides", arguments->overrides, "a.b=c, +a.b=c or ~a.b.");
  };
  with_file(add("check", "Read strictly and report every mistake.", [arguments, &registry] {
    train::read_run_config(arguments->file, arguments->overrides, registry, nullptr, stderr_log());
    fmt::print("{}: ok\n", arguments->file);
    return int{kDone};
  }));
  with_file(add(
      "print", "The whole configuration with defaults and the origin of every value.",
      [arguments, &registry] {
        config::Node written;
        const auto config = train::read_run_config(arguments->file, arguments->overrides, registry, &written);
        fmt::print("{}", config::emit_yaml_with_origins(train::dump_run_config(config, registry, &written)));
        return int{kDone};
      }));
  auto* explain = add(
      "explain",
      "What one key means (conclave config explain training.global_batch_size), or what a configuration file "
      "asks for: parameters, compute and memory of its model.",
      [arguments, &registry] {
        if (std::filesystem::is_regular_file(arguments->key)) {
          fmt::print("{}\n",
                     describe_model(train::read_run_config(arguments->key, arguments->overrides, registry),
                                    registry));
          return int{kDone};
        }
        const auto tables = train::plugin_tables(registry);
        fmt::print("{}", config::explain_key(declaration(std::make_shared<train::RunConfig>()), &tables,
                                             arguments->key));
        return int{kDone};
      });
  explain->add_option("key", arguments->key, "Dotted key, or a configuration file.")->required();
  explain->add_option("overrides", arguments->overrides, "With a file: a.b=c, +a.b=c or ~a.b.");
  add("schema", "JSON Schema of configuration files, for editors.", [&registry] {
    const auto tables = train::plugin_tables(registry);
    fmt::print("{}\n", config::json_schema(declaration(std::make_shared<train::RunConfig>()), &tables,
                                           "Conclave configuration"));
    return int{kDone};
  });
  add("reference", "Reference page of all keys, in Markdown.", [&registry] {
    const auto tables = train::plugin_tables(registry);
    fmt::print("{}", config::reference_page(declaration(std::make_shared<train::RunConfig>()), &tables,
                                            "Configuration keys"));
    return int{kDone};
  });
}

}  // namespace conclave::cli
