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
#include "conclave/train/resolve.h"
#include "conclave/train/signals.h"
#include "conclave/train/trainer.h"
#include "ranks.h"

namespace conclave::cli {

namespace {

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string folder_file;
  bool dry_run = false;
  bool fresh = false;
};

// What the first rank shows; the others tell what is wrong with them alone.
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
  std::string result;
  if (const auto it = series.find("final/bits_per_byte"); it != series.end()) {
    result = fmt::format(": {:.4f} bits per byte on held-out text", it->second.values.back());
  } else if (const auto masked = series.find("final/masked_loss"); masked != series.end()) {
    result = fmt::format(": loss {:.4f} per hidden token of held-out text", masked->second.values.back());
  }
  fmt::print("{} is finished{}\n", directory.folder().string(), result);
  return kDone;
}

int dry_run(const TrainArguments& arguments, train::RunConfig config) {
  const auto dataset = data::open_dataset(config.data, data::make_tokenizer(config.tokenizer), stderr_log());
  config.sequences_per_epoch = train::sequences_per_epoch(dataset);
  fmt::print("{} is valid: {} steps of {} sequences, {} training sources; nothing was started\n",
             arguments.config, config.num_steps(), config.training.global_batch_size, dataset.train.size());
  return kDone;
}

// Differences of a run's configuration to the present one. Where to stop early is no part of what the run is,
// and neither is what computes it, how many ranks train it and how they exchange tokens: it continues with
// other values of these.
train::ConfigDifferences differences_to(const config::Node& now) {
  return [&now](const std::string& old_text) {
    auto changed = config::differences(config::parse_yaml("resolved_config.yaml", old_text), now);
    std::erase_if(changed, [](const auto& line) {
      return line.rfind("training.exit_after:", 0) == 0 || line.rfind("parallelism.", 0) == 0 ||
             line.rfind("model.moe.dispatcher.", 0) == 0 || line.rfind("device:", 0) == 0;
    });
    return changed;
  };
}

// What is known before the ranks meet.
struct Start {
  config::Node written = {};
  train::RunConfig config = {};
  Log log = {};
};

int train_on(const comm::RankGroups& ranks, c10::Device device, const Start& start,
             const TrainArguments& arguments, const moe::Registry& registry, const std::string& command) {
  const int rank = ranks.world->rank();
  const auto& [written, config, log] = start;
  const auto now = train::dump_run_config(config, registry);
  refuse_different_configs(*ranks.world, now);
  train::RunRecord record{
      .resolved_config = config::emit_yaml_with_origins(train::dump_run_config(config, registry, &written)),
      .environment_json = environment_json(),
      .command = command};
  for (const auto& override_text : arguments.overrides) record.overrides += override_text + "\n";
  const auto directory = train::RunDirectory::of_ranks(*ranks.world, [&] {
    return train::RunDirectory(config.run.folder(), record, differences_to(now), arguments.fresh, log);
  });
  if (rank == 0 && !arguments.folder_file.empty()) {
    write_file_atomically(arguments.folder_file, directory.folder().string() + "\n");
  }
  if (directory.start() == train::RunStart::kFinished) return rank == 0 ? show_finished(directory) : kDone;

  const train::StopSignals signals;
  const auto line =
      std::make_shared<StatusLine>(inspect_terminal(STDERR_FILENO), config.logging.interval,
                                   [](std::string_view text) { write_quietly(STDERR_FILENO, text); });
  train::TrainerHooks hooks;
  if (rank == 0) {
    hooks = terminal_hooks(line, signals);
    hooks.observer = std::make_shared<analyze::TraceObserver>(analyze::TraceOptions{
        .run = directory.folder(), .last_step = directory.resume_step().value_or(-1), .log = hooks.log});
  } else {
    hooks.log = log;
    hooks.stop_requested = [&signals] { return signals.requested(); };
  }
  train::Trainer trainer(config, registry, directory, std::move(hooks), ranks, device);
  const auto result = trainer.run();
  ranks.world->barrier();  // the first rank may keep what the others meet at
  line->finish();
  if (result.stopped_by) {
    log.info(fmt::format("stopped by {} after step {}; the same command continues",
                         train::signal_name(*result.stopped_by), result.step));
    return 128 + *result.stopped_by;
  }
  if (rank == 0) {
    fmt::print("{}: step {}, held-out {}, {}\n", directory.folder().string(), result.step,
               result_text(result.validation), clock_text(result.seconds));
  }
  return kDone;
}

int train_command(const TrainArguments& arguments, const moe::Registry& registry,
                  const std::string& command) {
  const auto launch = comm::read_launch(std::getenv);
  Start start{.log = rank_log(launch)};
  std::optional<int64_t> num_ranks = launch ? launch->world_size : 1;
  if (arguments.dry_run && !launch) num_ranks.reset();  // as many as the file asks for
  start.config = train::read_run_config(arguments.config, arguments.overrides, registry, &start.written,
                                        start.log, num_ranks);
  c10::Device device = c10::DeviceType::CPU;  // a dry run may be for another machine
  if (!arguments.dry_run) device = train::open_device(start.config.device, launch ? launch->local_rank : 0);
  start.log.info(describe_model(start.config, registry));
  if (arguments.dry_run) return launch && launch->rank > 0 ? kDone : dry_run(arguments, start.config);

  const auto ranks = connect_ranks(launch, start.config, start.log);
  try {
    return train_on(ranks, device, start, arguments, registry, command);
  } catch (const std::exception& error) {
    ranks.world->abort(error.what());
    throw;
  }
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
      "On several ranks:\n"
      "  conclave launch -n 2 train configs/quickstart_ep2.yaml\n"
      "  torchrun --no-python --nproc-per-node 2 conclave train configs/quickstart_ep2.yaml\n"
      "Exit codes: 0 done, 1 failed, 2 configuration, 3 data or checkpoint, 4 memory, 5 another rank failed "
      "or\n"
      "is not reached, 6 diverged,\n"
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
