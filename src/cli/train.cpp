// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>
#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/config/load.h"
#include "conclave/config/parse.h"
#include "conclave/config/problems.h"
#include "conclave/train/metrics.h"
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

std::string describe_model(const train::RunConfig& config, const moe::Registry& registry, int64_t vocab) {
  int64_t active_experts = 0;
  if (const auto& moe = config.model.moe) {
    active_experts = registry.routers.at(moe->router.type).caps(moe->router.options).max_choices;
    if (active_experts == 0) active_experts = moe->num_experts;
  }
  const auto a = model::account(config.model, vocab, active_experts, config.data.seq_length,
                                config.training.precision == train::Precision::kFp64 ? 8 : 4);
  return fmt::format("{:.2f} M parameters, {:.2f} M active, {:.1f} MFLOP/token, {:.0f} MiB of training state",
                     a.total_parameters / 1e6, a.active_parameters / 1e6, a.flops_per_token / 1e6,
                     static_cast<double>(a.training_state_bytes) / (1 << 20));
}

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds);
  return s >= 3600 ? fmt::format("{}h{:02}m", s / 3600, s / 60 % 60)
                   : fmt::format("{}m{:02}s", s / 60, s % 60);
}

std::string status_text(const train::StepReport& r) {
  return fmt::format(
      "step {}/{} | loss {:.4f} | {:.3f} bits/byte | lr {:.2e} | grad norm {:.2f} | {:.0f} tok/s | "
      "load max/mean {:.2f} | {} left",
      r.step, r.num_steps, r.loss, r.bits_per_byte, r.lr, r.gradient_norm, r.tokens_per_second,
      r.load_max_over_mean, clock_text(r.seconds_left));
}

// A live line on a terminal, plain lines every `interval` steps elsewhere.
train::TrainerHooks terminal_hooks(int64_t interval, const train::StopSignals& signals) {
  const bool live = isatty(STDERR_FILENO) != 0;
  train::TrainerHooks hooks;
  hooks.log = stderr_log();
  hooks.on_step = [live, interval](const train::StepReport& report) {
    if (live) {
      say("\r\033[K{}", status_text(report));
      if (report.step % interval == 0) say("\n");
    } else if (report.step % interval == 0 || report.step == 1) {
      say("{}\n", status_text(report));
    }
  };
  hooks.on_evaluation = [live](int64_t step, const train::EvaluationResult& result) {
    say("{}step {} | held-out: loss {:.4f}, {:.4f} bits/byte over {} bytes\n", live ? "\r\033[K" : "", step,
        result.loss, result.bits_per_byte, result.bytes);
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
  config::Node written;
  const auto config = train::read_run_config(arguments.config, arguments.overrides, registry, &written);
  const auto tokenizer = data::make_tokenizer(config.tokenizer);
  say("{}\n", describe_model(config, registry, config.model.vocab_size.value_or(tokenizer->vocab_size())));
  if (arguments.dry_run) {
    const auto dataset = data::open_dataset(config.data, tokenizer, stderr_log());
    fmt::print("{} is valid: {} steps of {} sequences, {} training sources; nothing was started\n",
               arguments.config, config.num_steps(), config.training.global_batch_size, dataset.train.size());
    return kDone;
  }
  const auto now = train::dump_run_config(config, registry);
  const auto differences = [&](const std::string& old_text) {
    auto changed = config::differences(config::parse_yaml("resolved_config.yaml", old_text), now);
    // Where to stop early is no part of what the run is: it continues without the key, or with a later step.
    std::erase_if(changed, [](const auto& line) { return line.rfind("training.exit_after:", 0) == 0; });
    return changed;
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
    say("stopped by {} after step {}; the same command continues\n", train::signal_name(*result.stopped_by),
        result.step);
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
