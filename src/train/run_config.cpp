// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/run_config.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/core/error.h"
#include "conclave/train/resolve.h"

#include "config_checks.h"

namespace conclave::train {

c10::ScalarType parameter_dtype(Precision precision) {
  return precision == Precision::kFp64 ? c10::ScalarType::Double : c10::ScalarType::Float;
}

c10::ScalarType activation_dtype(Precision precision) {
  return precision == Precision::kBf16 ? c10::ScalarType::BFloat16 : parameter_dtype(precision);
}

void RunOptions::fields(config::Fields& f) {
  f("name", name, "Name of the run.");
  f("output_dir", output_dir, "Folder of the run; null: runs/<name>.");
  f("seed", seed, "Seed of every random decision.").min(0);
  f("tags", tags, "Free words kept with the run.");
}

void TrainingOptions::fields(config::Fields& f) {
  f("train_iters", train_iters, "Optimizer steps of the run.").min(1);
  f("train_tokens", train_tokens, "Tokens of the run; rounded up to whole steps.").min(1);
  f("train_epochs", train_epochs,
    "Passes over the training data (over as many sequences as all sources have); rounded up to whole steps.")
      .positive();
  f("max_minutes", max_minutes,
    "Time limit: progress = max(step / steps, elapsed / max_minutes), and schedules follow progress.")
      .positive();
  f("exit_after", exit_after, "Save and stop after this step; schedules stay those of the whole run.").min(1);
  f("global_batch_size", global_batch_size, "Sequences per optimizer step.").min(1);
  f("micro_batch_size", micro_batch_size, "Sequences per forward pass.").min(1);
  f("precision", precision,
    {{"auto", Precision::kAuto},
     {"fp32", Precision::kFp32},
     {"bf16", Precision::kBf16},
     {"fp64", Precision::kFp64}},
    "Activations: bf16 beside fp32 parameters, all fp32, or all fp64 (for proofs); auto: bf16 where the CPU "
    "multiplies it at speed, else fp32.");
  f("recompute", recompute,
    {{"none", model::Recompute::kNone},
     {"selective", model::Recompute::kSelective},
     {"full", model::Recompute::kFull}},
    "Computed again in the backward pass instead of kept: nothing, the feed-forward halves of the blocks, or "
    "whole "
    "blocks. Routing decisions are repeated, never made again; the results are the same.");
  f("clip_grad", clip_grad, "Largest global gradient norm; null: no clipping.").positive();
  f("on_nonfinite", on_nonfinite, {{"error", OnNonfinite::kError}, {"skip", OnNonfinite::kSkip}},
    "A loss or gradient that is not finite: stop the run, or skip (and count) the update of that step.");
  f("freeze", freeze,
    "Globs of parameter names (`*` any text, `?` one character) that keep their values: no gradient, no "
    "update, no decay.");
  f.check([this](config::Check& check) {
    if (train_iters.has_value() + train_tokens.has_value() + train_epochs.has_value() != 1) {
      check.error("", "give exactly one of train_iters, train_tokens and train_epochs",
                  "for example training.train_iters: 1000");
    }
    if (global_batch_size % micro_batch_size != 0) {
      const int64_t below = global_batch_size / micro_batch_size * micro_batch_size;
      check.error(
          "global_batch_size",
          fmt::format("{} is not divisible by micro_batch_size {}", global_batch_size, micro_batch_size),
          below > 0 ? fmt::format("use {} or {}", below, below + micro_batch_size)
                    : fmt::format("use {}", micro_batch_size));
    }
  });
}

void CheckpointOptions::fields(config::Fields& f) {
  f("interval", interval, "Steps between checkpoints; null: only the last.").min(1);
  f("keep_latest_k", keep_latest_k, "Newest checkpoints that are kept; null: all.").min(1);
  f("keep_every", keep_every, "Checkpoints of these multiples are kept for ever.").min(1);
  f("resume", resume, {{"auto", Resume::kAuto}},
    "auto: the same command continues the run of run.output_dir; --fresh moves the old folder aside.");
  f("init_from", init_from,
    "Start from the weights of a checkpoint folder or of one safetensors file; everything else is that of "
    "step "
    "0. A run that continues does not read it.");
  f("on_save_error", on_save_error, {{"continue", OnSaveError::kContinue}, {"stop", OnSaveError::kStop}},
    "A save that fails (full disk) is reported, and the run goes on or stops. The last save of a run has to "
    "succeed.");
  f("in_background", in_background,
    "Save a copy of the state while training goes on; takes as much memory as a checkpoint once more.");
}

void EvaluationConfig::fields(config::Fields& f) {
  f("interval", interval, "Steps between evaluations on the fixed sample; null: only the last.").min(1);
  f("iters", iters, "Size of the fixed sample in global batches; null: sample_tokens.").min(1);
  f("sample_tokens", sample_tokens, "Size of the fixed sample in tokens.")
      .min(1)
      .only_if([this] { return !iters.has_value(); }, "evaluation.iters sets the size");
  f("at_start", at_start, "Evaluate before the first step.");
}

void LoggingOptions::fields(config::Fields& f) {
  f("interval", interval, "Steps between metric lines.").min(1);
  f("metrics", metrics, "Where metrics go: jsonl (always needed for resume and reports), tensorboard.");
  f("moe_detail", moe_detail,
    {{"off", MoeDetail::kOff}, {"brief", MoeDetail::kBrief}, {"full", MoeDetail::kFull}},
    "Metrics of the routing: none, means over the layers, or also a summary per layer.");
  f("peak_tflops", peak_tflops,
    "Peak of the machine in TFLOP/s at the precision used; status line and metrics then have MFU. null: no "
    "MFU.")
      .positive();
  f.check([this](config::Check& check) {
    if (std::find(metrics.begin(), metrics.end(), "jsonl") == metrics.end()) {
      check.error("metrics", "jsonl is the source of truth and cannot be left out", "add jsonl");
    }
  });
}

void RunConfig::fields(config::Fields& f) {
  f("schema_version", schema_version, "Version of this tree.").min(1).max(1);
  f("run", run, "Name, folder and seed.");
  declare_device(f, device);
  f("model", model, "The transformer, in the terms of a Hugging Face config.json.");
  f.plugin("tokenizer", tokenizer, "tokenizers", "Text to tokens.");
  f("data", data, "What is trained on and what is held out.");
  f("training", training, "Length and batches of the run.");
  f("optimizer", optimizer, "Update rule.");
  f("lr_scheduler", lr_scheduler, "Learning rate over the run.");
  f("parallelism", parallelism, "How many ranks do what.");
  f("checkpoint", checkpoint, "What is saved.");
  f("evaluation", evaluation, "When held-out text is scored.");
  f("logging", logging, "What is reported.");
  f.check([this](config::Check& check) {
    if (lr_scheduler.min_lr > optimizer.lr.largest())
      check.error("lr_scheduler.min_lr", fmt::format("{} is above optimizer.lr", lr_scheduler.min_lr),
                  "lower it; it is the rate at the end of the run");
  });
}

int64_t RunConfig::num_steps() const {
  if (training.train_iters) return *training.train_iters;
  if (training.train_epochs) {
    CONCLAVE_CHECK(sequences_per_epoch, "the length of train_epochs is known once the data are open");
    const double sequences = *training.train_epochs * static_cast<double>(*sequences_per_epoch);
    return std::max<int64_t>(
        1, static_cast<int64_t>(std::ceil(sequences / static_cast<double>(training.global_batch_size))));
  }
  const int64_t tokens_per_step = training.global_batch_size * data.seq_length;
  return (*training.train_tokens + tokens_per_step - 1) / tokens_per_step;
}

int64_t RunConfig::evaluation_tokens() const {
  if (!evaluation.iters) return evaluation.sample_tokens;
  return *evaluation.iters * training.global_batch_size * data.seq_length;
}

config::Tables plugin_tables(const moe::Registry& registry) {
  auto tables = registry.tables();
  for (const auto& entry : data::builtin_tokenizers()) tables["tokenizers"].push_back(entry);
  return tables;
}

namespace {

// A plug-in that the file does not mention has its defaults still to be filled in.
void complete(config::Plugin& plugin, const std::vector<config::PluginInfo>& table) {
  for (const auto& info : table) {
    if (info.name == plugin.type && !plugin.options.has_value()) plugin.options = info.defaults();
  }
}

}  // namespace

RunConfig read_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                          const moe::Registry& registry, config::Node* written, const Log& log,
                          std::optional<int64_t> num_ranks) {
  config::Node root = config::load_config(file, overrides);
  const auto tables = plugin_tables(registry);
  RunConfig config;
  config::Problems problems;
  read_aliases(root, problems);
  config::read_fields([&](config::Fields& f) { config.fields(f); }, &tables, root, "", problems);
  for (const auto& line : problems.note_lines()) log.info(line);
  problems.throw_if_any();
  complete(config.tokenizer, tables.at("tokenizers"));
  if (config.model.moe) {
    complete(config.model.moe->router, tables.at("routers"));
    complete(config.model.moe->balance_update, tables.at("balance_updates"));
    check_aux_losses(*config.model.moe, registry, root, problems);
  }
  check_router(config, registry, root, problems);
  check_layout(config, registry, num_ranks, root, problems);
  if (config.data.train.empty()) {
    problems.add(nearest_written(root, {"data"})->origin, "data.train is empty",
                 "name a source: data.train: [{corpus: domains4}]");
  }
  problems.throw_if_any();
  config.resolved = resolve_automatic(config, registry, num_ranks);
  if (written) *written = root;
  return config;
}

config::Node dump_run_config(RunConfig config, const moe::Registry& registry, const config::Node* written) {
  const auto tables = plugin_tables(registry);
  complete(config.tokenizer, tables.at("tokenizers"));
  if (config.model.moe) {
    complete(config.model.moe->router, tables.at("routers"));
    complete(config.model.moe->balance_update, tables.at("balance_updates"));
  }
  auto dump = config::dump_fields([&](config::Fields& f) { config.fields(f); }, &tables, written);
  mark_resolved(dump, config.resolved);
  return dump;
}

}  // namespace conclave::train
