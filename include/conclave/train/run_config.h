// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "conclave/core/log.h"
#include "conclave/data/options.h"
#include "conclave/data/tokenizer.h"
#include "conclave/model/options.h"
#include "conclave/model/recompute.h"
#include "conclave/moe/registry.h"
#include "conclave/optim/optimizer.h"
#include "conclave/train/machine_options.h"

namespace conclave::train {

// kAuto is resolved when a file is read: bf16 where the CPU multiplies bf16 at speed, else fp32.
enum class Precision { kAuto, kFp32, kBf16, kFp64 };
enum class OnNonfinite { kError, kSkip };
enum class OnSaveError { kContinue, kStop };
enum class Resume { kAuto };

// Parameters, and with them gradients and moments, are fp32 (masters) unless everything is fp64.
c10::ScalarType parameter_dtype(Precision precision);
c10::ScalarType activation_dtype(Precision precision);

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
  std::optional<double> train_epochs = {};  // of all training sources together
  std::optional<double> max_minutes = {};
  std::optional<int64_t> exit_after = {};  // stop early after this step, schedules unchanged
  int64_t global_batch_size = 8;
  int64_t micro_batch_size = 8;
  Precision precision = Precision::kAuto;
  model::Recompute recompute = model::Recompute::kNone;
  std::optional<double> clip_grad = 1.0;
  OnNonfinite on_nonfinite = OnNonfinite::kError;
  std::vector<std::string> freeze = {};  // globs of logical parameter names
  void fields(config::Fields& f);
};

struct CheckpointOptions {
  std::optional<int64_t> interval = 500;
  std::optional<int64_t> keep_latest_k = 2;
  std::optional<int64_t> keep_every = {};
  Resume resume = Resume::kAuto;
  std::optional<std::string> init_from = {};  // weights of step 0
  OnSaveError on_save_error = OnSaveError::kContinue;
  bool in_background = false;
  void fields(config::Fields& f);
};

struct EvaluationConfig {
  std::optional<int64_t> interval = 100;
  // Size of the fixed sample of the periodic evaluations; the last one reads everything.
  std::optional<int64_t> iters = {};  // in global batches; null: sample_tokens
  int64_t sample_tokens = 131072;
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
  Device device = Device::kAuto;
  model::ModelOptions model = {};
  config::Plugin tokenizer = {.type = "bytes", .options = {}};
  data::DataOptions data = {};
  TrainingOptions training = {};
  optim::OptimizerOptions optimizer = {};
  optim::LrSchedulerOptions lr_scheduler = {};
  ParallelismOptions parallelism = {};
  CheckpointOptions checkpoint = {};
  EvaluationConfig evaluation = {};
  LoggingOptions logging = {};
  void fields(config::Fields& f);

  // Reasons of the values that were `auto`, by key; filled by read_run_config.
  std::map<std::string, std::string> resolved = {};
  // Sequences of one pass over the training data; known once they are open, and only then is the length of a
  // run of train_epochs.
  std::optional<int64_t> sequences_per_epoch = {};

  // Optimizer steps of the whole run. Throws Error for train_epochs without sequences_per_epoch.
  int64_t num_steps() const;
  // Tokens of the fixed evaluation sample.
  int64_t evaluation_tokens() const;
};

config::Tables plugin_tables(const moe::Registry& registry);

// Reads and checks a file with overrides; throws ConfigError with every problem. `written`, if given,
// receives the tree as the user wrote it, for the origins in resolved_config.yaml. Every `auto` is decided in
// the result. `log` hears of the aliases that were read. `num_ranks`: how many were started, for
// `parallelism`; null where none are, and it stands for itself.
RunConfig read_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                          const moe::Registry& registry, config::Node* written = nullptr, const Log& log = {},
                          std::optional<int64_t> num_ranks = {});

// The whole configuration as a tree, defaults included.
config::Node dump_run_config(RunConfig config, const moe::Registry& registry,
                             const config::Node* written = nullptr);

}  // namespace conclave::train
