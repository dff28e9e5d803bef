// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "conclave/data/options.h"
#include "conclave/data/tokenizer.h"
#include "conclave/model/options.h"
#include "conclave/moe/registry.h"
#include "conclave/optim/optimizer.h"

namespace conclave::train {

enum class Precision { kFp32, kFp64 };

struct RunOptions {
  std::string name = "run";
  std::optional<std::string> output_dir = {};  // null: runs/<name>
  int64_t seed = 1234;
  std::map<std::string, std::string> tags = {};
  void fields(config::Fields& f);
  std::string folder() const { return output_dir.value_or("runs/" + name); }
};

struct TrainingOptions {
  std::optional<int64_t> train_iters = {};
  std::optional<int64_t> train_tokens = {};
  std::optional<double> max_minutes = {};
  std::optional<int64_t> exit_after = {};  // stop early after this step, schedules unchanged
  int64_t global_batch_size = 8;
  int64_t micro_batch_size = 8;
  Precision precision = Precision::kFp32;
  std::optional<double> clip_grad = 1.0;
  bool skip_nonfinite = false;
  void fields(config::Fields& f);
};

struct CheckpointOptions {
  std::optional<int64_t> interval = 500;
  std::optional<int64_t> keep_latest_k = 2;
  std::optional<int64_t> keep_every = {};
  bool continue_on_save_error = true;
  void fields(config::Fields& f);
};

struct EvaluationConfig {
  std::optional<int64_t> interval = 100;
  int64_t sample_tokens = 131072;  // fixed sample of the periodic evaluation; the last one reads everything
  bool at_start = false;
  void fields(config::Fields& f);
};

// How much is logged of the routing; every level has a bounded number of series.
enum class MoeDetail { kOff, kBrief, kFull };

struct LoggingOptions {
  int64_t interval = 10;
  std::vector<std::string> metrics = {"jsonl", "tensorboard"};
  MoeDetail moe_detail = MoeDetail::kBrief;
  std::optional<double> peak_tflops = {};  // of the machine; null: no MFU is shown
  void fields(config::Fields& f);
};

// The tree of a configuration file; every section is declared by the room that owns it.
struct RunConfig {
  int64_t schema_version = 1;
  RunOptions run = {};
  model::ModelOptions model = {};
  config::Plugin tokenizer = {.type = "bytes", .options = {}};
  data::DataOptions data = {};
  TrainingOptions training = {};
  optim::OptimizerOptions optimizer = {};
  optim::LrSchedulerOptions lr_scheduler = {};
  CheckpointOptions checkpoint = {};
  EvaluationConfig evaluation = {};
  LoggingOptions logging = {};
  void fields(config::Fields& f);

  // Optimizer steps of the whole run.
  int64_t num_steps() const;
};

config::Tables plugin_tables(const moe::Registry& registry);

// Reads and checks a file with overrides; throws ConfigError with every problem. `written`, if given,
// receives the tree as the user wrote it, for the origins in resolved_config.yaml.
RunConfig read_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                          const moe::Registry& registry, config::Node* written = nullptr);

// The whole configuration as a tree, defaults included.
config::Node dump_run_config(RunConfig config, const moe::Registry& registry,
                             const config::Node* written = nullptr);

}  // namespace conclave::train
