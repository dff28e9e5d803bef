// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conclave/comm/groups.h"
#include "conclave/data/batch_stream.h"
#include "conclave/moe/stats.h"
#include "conclave/optim/gradients.h"
#include "conclave/train/aux_objective.h"
#include "conclave/train/background_save.h"
#include "conclave/train/checkpoint_store.h"
#include "conclave/train/evaluate.h"
#include "conclave/train/metrics.h"
#include "conclave/train/run_config.h"
#include "conclave/train/run_directory.h"

namespace conclave::train {

// What one optimizer step did, for the status line and the metrics.
struct StepReport {
  int64_t step = 0;  // number of finished steps
  int64_t num_steps = 0;
  double progress = 0;  // [0, 1]
  model::Objective objective = model::Objective::kCausalLm;
  double loss = 0;           // nats per target; masked_lm: per hidden token
  double bits_per_byte = 0;  // causal_lm only
  double lr = 0;
  double gradient_norm = 0;
  double tokens_per_second = 0;
  // Model FLOP utilisation, tokens/s * FLOP per token (model::account) / peak; null without a peak.
  std::optional<double> mfu = {};
  double seconds_left = 0;
  double load_max_over_mean = 0;  // mean over MoE layers
  bool skipped = false;
};

double monotonic_seconds();

struct TrainerHooks {
  std::function<void(const StepReport&)> on_step = [](const StepReport&) {};
  std::function<void(int64_t step, const EvaluationResult&)> on_evaluation = [](int64_t,
                                                                                const EvaluationResult&) {};
  // A signal number once the run should save and stop.
  std::function<std::optional<int>()> stop_requested = [] { return std::nullopt; };
  std::shared_ptr<EvaluationObserver> observer = {};  // may be null
  Log log = {};
  std::function<double()> clock = monotonic_seconds;  // seconds, never falling; progress in time follows it
};

struct TrainingResult {
  int64_t step = 0;
  EvaluationResult validation = {};
  std::optional<int> stopped_by = {};  // signal
  double seconds = 0;
};

// One run: model, data stream, optimizer and everything that a checkpoint holds. Names no technique. Every
// rank has one, and they do the same at the same time; the first one writes metrics and status.
class Trainer {
 public:
  // Opens data and builds the model; continues from the newest checkpoint of `directory` if there is one.
  // `ranks`: as config.parallelism asks for; their number changes nothing but time and memory. `device`:
  // where parameters are and everything is computed; ranks of a device take its buffers (comm::Place).
  Trainer(const RunConfig& config, const moe::Registry& registry, const RunDirectory& directory,
          TrainerHooks hooks, comm::RankGroups ranks = comm::single_rank(),
          c10::Device device = c10::DeviceType::CPU);

  // Trains to the end of the run, or until a signal or exit_after; always leaves a complete checkpoint. What
  // throws on the way stands in STATUS.json too.
  TrainingResult run();

  model::LanguageModel& model() { return *model_; }
  const data::Dataset& dataset() const { return dataset_; }

 private:
  struct StepSums {
    double nats = 0;
    int64_t bytes = 0;
  };
  TrainingResult run_to_end();
  void agree();
  StepReport train_step();
  void backward_step(StepReport& report);
  StepSums backward_micro_batches(const std::vector<data::Batch>& batches, const moe::StepTotals& totals);
  // What an attempt came to, the same on all ranks; neither: it was finished everywhere.
  struct Outcome {
    bool diverged = false;
    int64_t overflow_rows = 0;  // a budget of ranks that would have been enough
    bool whole() const { return !diverged && overflow_rows == 0; }
  };
  Outcome attempt(const std::function<void()>& part);
  Outcome attempt_step(const std::vector<data::Batch>& batches, const moe::StepTotals& totals,
                       StepSums& sums);
  void sum_over_ranks(StepSums& sums);
  void counting_pass(const std::vector<data::Batch>& batches);
  moe::ForwardContext training_context() const;
  void emit(const StepReport& report, double step_seconds);
  EvaluationResult evaluate_and_emit(bool whole);
  void save(bool last = false);
  void settle_save();
  void report_failed_save(int64_t step, const Error& error) const;
  CheckpointContents checkpoint_contents() const;
  void report_running() const;
  void report_end(const TrainingResult& result) const;
  void report_failure(const std::string& reason) const;
  void restore(int64_t step);
  double progress() const { return progress_at(step_, agreed_seconds_); }
  double progress_at(int64_t step, double seconds) const;
  double elapsed_seconds() const;

  RunConfig config_;
  comm::RankGroups ranks_;
  moe::Registry registry_;
  const RunDirectory& directory_;
  TrainerHooks hooks_;
  data::Dataset dataset_;
  std::shared_ptr<model::LanguageModel> model_;
  std::shared_ptr<const optim::ParameterShards> shards_;
  std::unique_ptr<optim::AdamW> optimizer_;
  std::unique_ptr<optim::Gradients> gradients_;
  AuxObjective aux_;
  std::unique_ptr<moe::BalanceUpdater> balance_;  // null: none
  std::unique_ptr<data::BatchStream> stream_;
  CheckpointStore checkpoints_;
  std::unique_ptr<BackgroundSave> background_;  // null: saves are waited for
  std::vector<std::unique_ptr<MetricsSink>> sinks_;

  std::optional<double> peak_tokens_per_second_;  // at which every FLOP of the machine's peak would count

  int64_t step_ = 0;     // finished optimizer steps
  int64_t tokens_ = 0;   // trained on
  int64_t skipped_ = 0;  // steps skipped because of a non-finite value
  int64_t saved_step_ = -1;
  double seconds_before_ = 0;  // training time of earlier starts of this run
  double started_ = 0;
  int64_t started_step_ = 0;                // of this start
  double agreed_seconds_ = 0;               // training time, the same on all ranks
  std::optional<int> stopped_by_ = {};      // a signal that some rank received
  std::vector<moe::RoutingCounts> counts_;  // of the present step, per MoE layer
  int64_t most_rank_rows_ = 0;  // of the present step: expert rows of a rank in a layer and micro-batch
  int64_t reruns_ = 0;          // of this start
};

}  // namespace conclave::train
