// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/run_config.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/core/error.h"

namespace conclave::train {

void RunOptions::fields(config::Fields& f) {
  f("name", name, "Name of the run.");
  f("output_dir", output_dir, "Folder of the run; null: runs/<name>.");
  f("seed", seed, "Seed of every random decision.").min(0);
  f("tags", tags, "Free words kept with the run.");
}

void TrainingOptions::fields(config::Fields& f) {
  f("train_iters", train_iters, "Optimizer steps of the run.").min(1);
  f("train_tokens", train_tokens, "Tokens of the run; rounded up to whole steps.").min(1);
  f("max_minutes", max_minutes,
    "Time limit: progress = max(step / steps, elapsed / max_minutes), and schedules follow progress.")
      .positive();
  f("exit_after", exit_after, "Save and stop after this step; schedules stay those of the whole run.").min(1);
  f("global_batch_size", global_batch_size, "Sequences per optimizer step.").min(1);
  f("micro_batch_size", micro_batch_size, "Sequences per forward pass.").min(1);
  f("precision", precision, {{"fp32", Precision::kFp32}, {"fp64", Precision::kFp64}},
    "Arithmetic of parameters and activations; fp64 is for proofs.");
  f("clip_grad", clip_grad, "Largest global gradient norm; null: no clipping.").positive();
  f("skip_nonfinite", skip_nonfinite,
    "Skip (and count) a step whose loss or gradient is not finite, else stop.");
  f.check([this](config::Check& check) {
    if (train_iters.has_value() == train_tokens.has_value()) {
      check.error("", "give exactly one of train_iters and train_tokens",
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
  f("continue_on_save_error", continue_on_save_error,
    "After a failed save (full disk) report it and train on, else stop.");
}

void EvaluationConfig::fields(config::Fields& f) {
  f("interval", interval, "Steps between evaluations on the fixed sample; null: only the last.").min(1);
  f("sample_tokens", sample_tokens, "Size of the fixed sample.").min(1);
  f("at_start", at_start, "Evaluate before the first step.");
}

void LoggingOptions::fields(config::Fields& f) {
  f("interval", interval, "Steps between metric lines.").min(1);
  f("metrics", metrics, "Where metrics go: jsonl (always needed for resume and reports), tensorboard.");
  f("moe_detail", moe_detail,
    {{"off", MoeDetail::kOff}, {"brief", MoeDetail::kBrief}, {"full", MoeDetail::kFull}},
    "Metrics of the routing: none, means over the layers, or also a summary per layer.");
  f("peak_tflops", peak_tflops,
    "Peak of the machine in TFLOP/s at the precision used; the status line then shows MFU. null: no MFU.")
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
  f("model", model, "The transformer, in the terms of a Hugging Face config.json.");
  f.plugin("tokenizer", tokenizer, "tokenizers", "Text to tokens.");
  f("data", data, "What is trained on and what is held out.");
  f("training", training, "Length and batches of the run.");
  f("optimizer", optimizer, "Update rule.");
  f("lr_scheduler", lr_scheduler, "Learning rate over the run.");
  f("checkpoint", checkpoint, "What is saved.");
  f("evaluation", evaluation, "When held-out text is scored.");
  f("logging", logging, "What is reported.");
}

int64_t RunConfig::num_steps() const {
  if (training.train_iters) return *training.train_iters;
  const int64_t tokens_per_step = training.global_batch_size * data.seq_length;
  return (*training.train_tokens + tokens_per_step - 1) / tokens_per_step;
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

const config::Node* find(const config::Node& root, std::initializer_list<const char*> path) {
  const config::Node* node = &root;
  for (const char* key : path) {
    const config::Node* next = node->find(key);
    if (!next) break;  // the nearest section that was written
    node = next;
  }
  return node;
}

// Conditions over several sections: a router's promises against the model's objective.
void check_router(const RunConfig& config, const moe::Registry& registry, const config::Node& root,
                  config::Problems& problems) {
  if (!config.model.moe) return;
  const auto& moe = *config.model.moe;
  const auto caps = registry.routers.at(moe.router.type).caps(moe.router.options);
  const auto& origin = find(root, {"model", "moe", "router"})->origin;
  if (!caps.causal && !moe.allow_noncausal) {
    problems.add(
        origin,
        fmt::format(
            "router '{}' as configured looks at later tokens, but the model is trained to predict them",
            moe.router.type),
        "choose a causal router (topk), order capacity by position, or set model.moe.allow_noncausal: true");
  }
  if (moe.balance_update.type != "none" && !caps.selection_bias) {
    problems.add(find(root, {"model", "moe", "balance_update"})->origin,
                 fmt::format("balance_update '{}' changes a selection bias, and router '{}' has none",
                             moe.balance_update.type, moe.router.type),
                 "use it with topk, or remove it");
  }
  if (caps.max_choices > moe.num_experts) {
    problems.add(find(root, {"model", "moe", "router", "top_k"})->origin,
                 fmt::format("model.moe.router: each token takes {} experts, but there are {}",
                             caps.max_choices, moe.num_experts),
                 fmt::format("use at most {}", moe.num_experts));
  }
}

}  // namespace

RunConfig read_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                          const moe::Registry& registry, config::Node* written) {
  const config::Node root = config::load_config(file, overrides);
  const auto tables = plugin_tables(registry);
  RunConfig config;
  config::Problems problems;
  config::read_fields([&](config::Fields& f) { config.fields(f); }, &tables, root, "", problems);
  problems.throw_if_any();
  complete(config.tokenizer, tables.at("tokenizers"));
  if (config.model.moe) {
    complete(config.model.moe->router, tables.at("routers"));
    complete(config.model.moe->balance_update, tables.at("balance_updates"));
  }
  check_router(config, registry, root, problems);
  if (config.data.train.empty()) {
    problems.add(find(root, {"data"})->origin, "data.train is empty",
                 "name a source: data.train: [{corpus: domains4}]");
  }
  problems.throw_if_any();
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
  return config::dump_fields([&](config::Fields& f) { config.fields(f); }, &tables, written);
}

}  // namespace conclave::train
