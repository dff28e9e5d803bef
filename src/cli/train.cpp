// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>
#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/config/load.h"
#include "conclave/config/parse.h"
#include "conclave/config/problems.h"
#include "conclave/model/objective.h"
#include "conclave/train/metrics.h"
#include "conclave/train/resolve.h"
#include "conclave/train/signals.h"
#include "conclave/train/trainer.h"

namespace conclave::cli {

namespace {

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  bool dry_run = false;
  bool fresh = false;
};

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds);
  return s >= 3600 ? fmt::format("{}h{:02}m", s / 3600, s / 60 % 60)
                   : fmt::format("{}m{:02}s", s / 60, s % 60);
}

std::string status_text(const train::StepReport& r) {
  const auto quality =
      model::codes_text(r.objective) ? fmt::format(" | {:.3f} bits/byte", r.bits_per_byte) : "";
  return fmt::format(
      "step {}/{} | {} {:.4f}{} | lr {:.2e} | grad norm {:.2f} | {:.0f} tok/s | "
      "load max/mean {:.2f} | {} left",
      r.step, r.num_steps, model::loss_name(r.objective), r.loss, quality, r.lr, r.gradient_norm,
      r.tokens_per_second, r.load_max_over_mean, clock_text(r.seconds_left));
}

std::string result_text(const train::EvaluationResult& r) {
  if (!model::codes_text(r.objective)) {
    return fmt::format("{} {:.4f} over {} hidden tokens", model::loss_name(r.objective), r.loss, r.targets);
  }
  return fmt::format("loss {:.4f}, {:.4f} bits/byte over {} bytes", r.loss, r.bits_per_byte, r.bytes);
}

// A live line on a terminal, plain lines every `interval` steps elsewhere.
train::TrainerHooks terminal_hooks(int64_t interval, const train::StopSignals& signals) {
  const bool live = isatty(STDERR_FILENO) != 0;
  train::TrainerHooks hooks;
  hooks.log = stderr_log();
  hooks.on_step = [live, interval](const train::StepReport& report) {
    if (live) {
      fmt::print(stderr, "\r\033[K{}", status_text(report));
      if (report.step % interval == 0) fmt::print(stderr, "\n");
    } else if (report.step % interval == 0 || report.step == 1) {
      fmt::print(stderr, "{}\n", status_text(report));
    }
  };
  hooks.on_evaluation = [live](int64_t step, const train::EvaluationResult& result) {
    fmt::print(stderr, "{}step {} | held-out: {}\n", live ? "\r\033[K" : "", step, result_text(result));
  };
  hooks.stop_requested = [&signals] { return signals.requested(); };
  return hooks;
}

int show_finished(const train::RunDirectory& directory) {
  const auto series = train::read_metrics(directory.folder() / train::kMetricsFile);
  std::string result;
  if (const auto it = series.find("final/bits_per_byte"); it != series.end()) {
    result = fmt::format(": {:.4f} bits per byte on held-out text", it->second.values.back());
  } else if (const auto masked = series.find("final/masked_loss"); masked != series.end()) {
    result = fmt::format(": loss {:.4f} per hidden token of held-out text", masked->second.values.back());
  }
  fmt::print("{} is finished{}\n", directory.folder().string(), result);
  return kDone;
}

int train_command(const TrainArguments& arguments, const moe::Registry& registry,
                  const std::string& command) {
  config::Node written;
  auto config =
      train::read_run_config(arguments.config, arguments.overrides, registry, &written, stderr_log());
  const auto tokenizer = data::make_tokenizer(config.tokenizer);
  fmt::print(stderr, "{}", describe_model(config, registry));
  if (arguments.dry_run) {
    const auto dataset = data::open_dataset(config.data, tokenizer, stderr_log());
    config.sequences_per_epoch = train::sequences_per_epoch(dataset);
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
  if (directory.start() == train::RunStart::kFinished) return show_finished(directory);

  const train::StopSignals signals;
  train::Trainer trainer(config, registry, directory, terminal_hooks(config.logging.interval, signals));
  const auto result = trainer.run();
  if (result.stopped_by) {
    fmt::print(stderr, "stopped by {} after step {}; the same command continues\n",
               train::signal_name(*result.stopped_by), result.step);
    return 128 + *result.stopped_by;
  }
  fmt::print("{}: step {}, held-out {}, {}\n", directory.folder().string(), result.step,
             result_text(result.validation), clock_text(result.seconds));
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
