// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "conclave/train/trainer.h"
#include "train/temporary_folder.h"

namespace conclave::analyze {

// Trains a model of a few hundred parameters on two small domains, in fp64.
class TinyRun {
 public:
  TinyRun() {
    std::ofstream corpus(folder / "text.jsonl");
    for (int i = 0; i < 60; ++i) {
      corpus << fmt::format(R"({{"text": "{} {} says {} times that {} comes after {}", "kind": "{}"}})",
                            i % 2 ? "animal" : "NUMBER", i, i % 7, i + 1, i, i % 2 ? "beasts" : "figures")
             << "\n";
    }
    setenv("CONCLAVE_CACHE", (folder / "cache").c_str(), 1);
    std::ofstream(folder / "tiny.yaml") << R"(
model:
  hidden_size: 12
  num_hidden_layers: 3
  num_attention_heads: 3
  num_key_value_heads: 3
  moe:
    num_experts: 5
    moe_intermediate_size: 7
    layers: [0, 2]
    router: {type: topk, top_k: 2}
    aux_losses: [{type: load_balancing, weight: 0.02}]
data:
  seq_length: 21
  valid: {fraction: 0.2}
  train: [{path: )" << (folder / "text.jsonl").string()
                                        << R"(, label_field: kind}]
training: {train_iters: 9, global_batch_size: 6, micro_batch_size: 6, precision: fp64}
checkpoint: {interval: 4}
evaluation: {interval: 2, sample_tokens: 63}
logging: {interval: 1, metrics: [jsonl]}
)";
  }

  std::filesystem::path run(const std::string& name) const { return folder / name; }

  train::RunConfig read(const std::string& name, std::vector<std::string> overrides = {}) {
    overrides.push_back("run.output_dir=" + run(name).string());
    return train::read_run_config(folder / "tiny.yaml", overrides, registry);
  }

  using MakeObserver =
      std::function<std::shared_ptr<train::EvaluationObserver>(const train::RunDirectory&, train::Trainer*&)>;

  // Trains to the end, or as if a signal had come after `stop_after` steps of this start.
  train::TrainingResult train(const train::RunConfig& config, const MakeObserver& make,
                              int64_t stop_after = -1) {
    const train::RunDirectory directory(
        config.run.folder(), {.resolved_config = "run:\n  name: tiny\n", .environment_json = "{}\n"},
        [](const std::string&) { return std::vector<std::string>{}; }, false);
    int64_t steps = 0;
    train::Trainer* self = nullptr;
    train::TrainerHooks hooks;
    hooks.on_step = [&](const train::StepReport&) { ++steps; };
    hooks.stop_requested = [&]() -> std::optional<int> {
      return steps == stop_after ? std::optional(15) : std::nullopt;
    };
    hooks.observer = make ? make(directory, self) : nullptr;
    train::Trainer trainer(config, registry, directory, hooks);
    self = &trainer;
    return trainer.run();
  }

  train::TemporaryFolder folder;
  moe::Registry registry = moe::builtin();
};

}  // namespace conclave::analyze
