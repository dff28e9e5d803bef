// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/analyze/trace_observer.h"
#include "conclave/cli/status_line.h"
#include "conclave/cli/streams.h"
#include "conclave/config/load.h"
#include "conclave/config/parse.h"
#include "conclave/config/problems.h"
#include "conclave/core/files.h"
#include "conclave/train/metrics.h"
#include "conclave/train/signals.h"
#include "conclave/train/trainer.h"

namespace conclave::cli {

namespace {

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string folder_file;
  bool dry_run = false;
  bool fresh = false;
};

model::Accounting account_model(const train::RunConfig& config, const moe::Registry& registry,
                                int64_t vocab) {
  int64_t active_experts = 0;
  if (const auto& moe = config.model.moe) {
    active_experts = registry.routers.at(moe->router.type).caps(moe->router.options).max_choices;
    if (active_experts == 0) active_experts = moe->num_experts;
  }
  return model::account(config.model, vocab, active_experts, config.data.seq_length,
                        config.training.precision == train::Precision::kFp64 ? 8 : 4);
}

std::string describe_model(const model::Accounting& a) {
  return fmt::format("{:.2f} M parameters, {:.2f} M active, {:.1f} MFLOP/token, {:.0f} MiB of training state",
                     a.total_parameters / 1e6, a.active_parameters / 1e6, a.flops_per_token / 1e6,
                     static_cast<double>(a.training_state_bytes) / (1 << 20));
}

// MFU counts what model::account counts: 6 FLOP per token and active matrix parameter, and attention's
// scores.
Utilisation utilisation(const train::RunConfig& config, const model::Accounting& accounting) {
  Utilisation result{.flops_per_token = accounting.flops_per_token};
  if (const auto& peak = config.logging.peak_tflops) result.peak_flops = *peak * 1e12;
  return result;
}

train::TrainerHooks terminal_hooks(const std::shared_ptr<StatusLine>& line,
                                   const train::StopSignals& signals) {
  train::TrainerHooks hooks;
  hooks.log = Log([line](LogLevel level, const std::string& message) {
    line->message(level == LogLevel::kInfo      ? message
                  : level == LogLevel::kWarning ? fmt::format("warning: {}", message)
                                                : fmt::format("error: {}", message));
  });
  hooks.on_step = [line](const train::StepReport& report) { line->step(report); };
  hooks.on_evaluation = [line](int64_t step, const train::EvaluationResult& result) {
    line->evaluation(step, result);
  };
  hooks.stop_requested = [&signals] { return signals.requested(); };
  return hooks;
}

int show_finished(const train::RunDirectory& directory) {
  const auto series = train::read_metrics(directory.folder() / train::kMetricsFile);
  const auto it = series.find("final/bits_per_byte");
  fmt::print("{} is finished{}\n", directory.folder().string(),
             it == series.end()
                 ? ""
                 : fmt::format(": {:.4f} bits per byte on held-out text", it->second.values.back()));
  return kDone;
}

int train_command(const TrainArguments& arguments, const moe::Registry& registry,
                  const std::string& command) {
  const BrokenPipesAreErrors pipes;
  config::Node written;
  const auto config = train::read_run_config(arguments.config, arguments.overrides, registry, &written);
  const auto tokenizer = data::make_tokenizer(config.tokenizer);
  const auto accounting =
      account_model(config, registry, config.model.vocab_size.value_or(tokenizer->vocab_size()));
  stderr_log().info(describe_model(accounting));
  if (arguments.dry_run) {
    const auto dataset = data::open_dataset(config.data, tokenizer, stderr_log());
    fmt::print("{} is valid: {} steps of {} sequences, {} training sources; nothing was started\n",
               arguments.config, config.num_steps(), config.training.global_batch_size, dataset.train.size());
    return kDone;
  }
  const auto now = train::dump_run_config(config, registry);
  const auto differences = [&](const std::string& old_text) {
    return config::differences(config::parse_yaml("resolved_config.yaml", old_text), now);
  };
  train::RunRecord record{
      .resolved_config = config::emit_yaml_with_origins(train::dump_run_config(config, registry, &written)),
      .environment_json = "{}\n",
      .command = command};
  for (const auto& override_text : arguments.overrides) record.overrides += override_text + "\n";
  const train::RunDirectory directory(config.run.folder(), record, differences, arguments.fresh,
                                      stderr_log());
  if (!arguments.folder_file.empty()) {
    write_file_atomically(arguments.folder_file, directory.folder().string() + "\n");
  }
  if (directory.start() == train::RunStart::kFinished) return show_finished(directory);

  const train::StopSignals signals;
  const auto line = std::make_shared<StatusLine>(
      inspect_terminal(STDERR_FILENO), config.logging.interval, utilisation(config, accounting),
      [](std::string_view text) { write_quietly(STDERR_FILENO, text); });
  auto hooks = terminal_hooks(line, signals);
  hooks.observer = std::make_shared<analyze::TraceObserver>(analyze::TraceOptions{
      .run = directory.folder(), .last_step = directory.resume_step().value_or(-1), .log = hooks.log});
  train::Trainer trainer(config, registry, directory, std::move(hooks));
  const auto result = trainer.run();
  line->finish();
  if (result.stopped_by) {
    stderr_log().info(fmt::format("stopped by {} after step {}; the same command continues",
                                  train::signal_name(*result.stopped_by), result.step));
    return 128 + *result.stopped_by;
  }
  fmt::print("{}: step {}, {:.4f} bits per byte on {} held-out bytes, {}\n", directory.folder().string(),
             result.step, result.validation.bits_per_byte, result.validation.bytes,
             clock_text(result.seconds));
  return kDone;
}

}  // namespace

void add_train(CLI::App& app, const moe::Registry& registry, Action& action) {
  auto* sub = app.add_subcommand("train", "Train the model of a configuration file, or continue its run.");
  auto arguments = std::make_shared<TrainArguments>();
  sub->add_option("config", arguments->config, "Configuration file.")->required();
  sub->add_option("overrides", arguments->overrides, "a.b=c sets, +a.b=c appends to a list, ~a.b deletes.");
  sub->add_flag("--dry-run", arguments->dry_run, "Read, check, account and open the data; start nothing.");
  sub->add_flag("--fresh", arguments->fresh, "Move an existing run folder aside instead of continuing it.");
  sub->add_option("--folder-file", arguments->folder_file,
                  "Write the path of the run folder to this file, for scripts.");
  sub->footer(
      "Examples:\n  conclave train configs/quickstart.yaml\n"
      "  conclave train configs/quickstart.yaml training.train_iters=50 run.name=short\n"
      "Exit codes: 0 done, 1 failed, 2 configuration, 3 data or checkpoint, 4 memory, 6 diverged,\n"
      "130/143 stopped by SIGINT/SIGTERM after a complete checkpoint.");
  sub->callback([&action, &registry, arguments] {
    action = [arguments, &registry] {
      std::string command = "conclave train " + arguments->config;
      for (const auto& text : arguments->overrides) command += " " + text;
      return train_command(*arguments, registry, command);
    };
  });
}

}  // namespace conclave::cli
