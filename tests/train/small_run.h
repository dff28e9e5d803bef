// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/trainer.h"
#include "train/temporary_folder.h"

namespace conclave::train {

// A run of a few steps in fp64 on a small corpus of documents of unequal length. `always`: overrides that
// every read starts with.
class SmallRun : public ::testing::Test {
 protected:
  explicit SmallRun(std::vector<std::string> always = {}) : always_(std::move(always)) {}

  void SetUp() override {
    std::ofstream corpus(folder_.path() / "text.jsonl");
    for (int i = 0; i < 40; ++i) {
      corpus << fmt::format(R"({{"text": "document {} says {} times that {} comes after {}{}"}})", i, i % 7,
                            i + 1, i, std::string(static_cast<size_t>(i * 5 % 23), 'z'))
             << "\n";
    }
    corpus.close();
    setenv("CONCLAVE_CACHE", (folder_ / "cache").c_str(), 1);
    write("small.yaml", R"(
model:
  hidden_size: 12
  num_hidden_layers: 2
  num_attention_heads: 3
  num_key_value_heads: 3
  moe:
    num_experts: 5
    moe_intermediate_size: 7
    router: {type: topk, top_k: 2, jitter_eps: 0.01}
    balance_update: {type: loss_free, rate: 0.01}
    aux_losses: [{type: load_balancing, weight: 0.02, scope: sequence}, {type: z_loss, weight: 0.001}]
data:
  seq_length: 21
  train: [{path: ")" + (folder_ / "text.jsonl").string() +
                            R"("}]
training: {train_iters: 6, global_batch_size: 6, micro_batch_size: 3, precision: fp64}
checkpoint: {interval: 4}
evaluation: {interval: null, sample_tokens: 63}
logging: {interval: 1, metrics: [jsonl]}
)");
  }

  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }

  RunConfig read(const std::string& run, const std::vector<std::string>& overrides = {}) {
    auto all = always_;
    all.insert(all.end(), overrides.begin(), overrides.end());
    all.push_back("run.output_dir=" + (folder_ / run).string());
    return read_run_config(folder_ / "small.yaml", all, registry_);
  }

  // What is wrong with small.yaml under these overrides; "" when nothing.
  std::string mistakes(const std::vector<std::string>& overrides) {
    try {
      read("x", overrides);
      return "";
    } catch (const ConfigError& error) {
      return error.what();
    }
  }

  static RunDirectory open(const RunConfig& config) {
    return RunDirectory(
        config.run.folder(), {.resolved_config = "a: 1\n", .environment_json = "{}\n"},
        [](const std::string&) { return std::vector<std::string>{}; }, false);
  }
  TrainingResult train(const RunConfig& config, TrainerHooks hooks = {}) {
    const RunDirectory directory = open(config);
    hooks.log = Log([this](LogLevel, const std::string& message) { log_ += message + "\n"; });
    Trainer trainer(config, registry_, directory, hooks);
    running_ = &trainer;
    return trainer.run();
  }

  // Stops as a signal would, before the step after `steps` of this start.
  TrainingResult train_and_stop(const RunConfig& config, int64_t steps) {
    int64_t done = 0;
    TrainerHooks hooks;
    hooks.on_step = [&](const StepReport&) { ++done; };
    hooks.stop_requested = [&] { return done == steps ? std::optional(15) : std::nullopt; };
    return train(config, hooks);
  }

  // The message of what `f` throws.
  template <class F>
  std::string failure(F&& f) {
    try {
      f();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  }

  at::Tensor parameter(const std::string& name) { return running_->model().named_parameters()[name]; }

  // The series of metrics.jsonl that do not depend on the clock.
  std::map<std::string, std::vector<double>> metrics(const std::string& run) {
    std::map<std::string, std::vector<double>> values;
    for (const auto& [name, series] : read_metrics(folder_ / run / kMetricsFile)) {
      if (name.rfind("perf/", 0) != 0) values[name] = series.values;
    }
    return values;
  }

  std::filesystem::path checkpoint(const std::string& run, int64_t step) {
    return folder_ / run / "checkpoints" / fmt::format("step-{:08}", step);
  }
  std::string bytes(const std::filesystem::path& file) { return read_file(file); }
  // Model, optimizer and state of a checkpoint are the same bytes.
  void expect_equal_checkpoints(const std::string& run, const std::string& other, int64_t step) {
    for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
      EXPECT_EQ(bytes(checkpoint(run, step) / name), bytes(checkpoint(other, step) / name)) << name;
    }
  }
  // The named series agree to 1e-9 of their values.
  void expect_near(const std::string& run, const std::string& other, const std::vector<std::string>& names) {
    const auto a = metrics(run), b = metrics(other);
    for (const auto& name : names) {
      ASSERT_EQ(a.at(name).size(), b.at(name).size()) << name;
      for (size_t i = 0; i < a.at(name).size(); ++i) {
        EXPECT_NEAR(b.at(name)[i], a.at(name)[i], 1e-9 * std::abs(a.at(name)[i])) << name << " " << i;
      }
    }
  }
  CheckpointStore store(const std::string& run) { return CheckpointStore(folder_ / run / "checkpoints"); }

  TemporaryFolder folder_;
  std::vector<std::string> always_;
  moe::Registry registry_ = moe::builtin();
  Trainer* running_ = nullptr;  // valid inside hooks
  std::string log_;
};

// EXPECT_TRUE(has(text, part)) << text
inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace conclave::train
