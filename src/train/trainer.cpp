// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "conclave/comm/agreement.h"
#include "conclave/core/error.h"
#include "conclave/model/objective.h"
#include "conclave/train/accounting.h"
#include "conclave/train/freeze.h"
#include "conclave/train/init_from.h"
#include "conclave/train/load_model.h"
#include "conclave/train/memory_report.h"
#include "conclave/train/model_state.h"
#include "conclave/train/moe_metrics.h"

namespace conclave::train {

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

namespace {

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::vector<Metric> loss_metrics(const std::string& prefix, model::Objective objective, double loss,
                                 double bits_per_byte) {
  std::vector<Metric> metrics = {{prefix + model::loss_name(objective), loss}};
  if (model::codes_text(objective)) metrics.push_back({prefix + "bits_per_byte", bits_per_byte});
  return metrics;
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const moe::Registry& registry, const RunDirectory& directory,
                 TrainerHooks hooks, comm::RankGroups ranks, c10::Device device)
    : config_(config),
      ranks_(std::move(ranks)),
      registry_(registry),
      directory_(directory),
      hooks_(std::move(hooks)),
      dataset_(data::open_dataset(config.data, data::make_tokenizer(config.tokenizer), hooks_.log)),
      checkpoints_(
          directory.checkpoints(),
          {.keep_latest_k = config.checkpoint.keep_latest_k, .keep_every = config.checkpoint.keep_every},
          hooks_.log) {
  const auto seed = static_cast<uint64_t>(config.run.seed);
  const bool moves_tokens =
      config.model.moe && config.model.moe->dispatcher.type != model::DispatcherType::kLocal;
  model_ = make_model(config, *dataset_.tokenizer, registry_, moves_tokens ? ranks_.expert : nullptr, device);
  model_->set_recompute(config.training.recompute);
  const auto parameters = nn::tagged_parameters(*model_);
  freeze_parameters(parameters, config.training.freeze, hooks_.log);
  shards_ = std::make_shared<optim::ParameterShards>(parameters, ranks_, config.parallelism.zero_stage);
  optimizer_ = std::make_unique<optim::AdamW>(shards_->owned(), config.optimizer);
  gradients_ = std::make_unique<optim::Gradients>(shards_);
  if (config.model.moe) {
    aux_ = AuxObjective(config.model.moe->aux_losses, registry_);
    const auto& balance = config.model.moe->balance_update;
    balance_ = registry_.balance_updates.at(balance.type).make(balance.options);
  }
  stream_ = std::make_unique<data::BatchStream>(
      dataset_, data::StreamOptions{.seed = seed,
                                    .micro_batch_size = config.training.micro_batch_size,
                                    .rank = ranks_.world->rank(),
                                    .num_ranks = ranks_.world->size()});
  config_.sequences_per_epoch = stream_->num_windows();
  if (config.checkpoint.in_background)
    background_ = std::make_unique<BackgroundSave>(ranks_.world->split(0, ranks_.world->rank()));
  comm::do_together(*ranks_.world, [&] {
    if (const auto step = directory.resume_step()) {
      restore(*step);
    } else if (const auto& from = config.checkpoint.init_from) {
      load_weights(*from, parameters, named_buffers(*model_), hooks_.log);
    }
  });
  if (const auto& peak = config.logging.peak_tflops) {
    peak_tokens_per_second_ =
        *peak * 1e12 * ranks_.world->size() / account_run(config, registry_).model.flops_per_token;
  }
  if (ranks_.world->rank() != 0) return;
  sinks_ = make_metrics_sinks(
      config.logging.metrics, builtin_metrics_sinks(),
      {.folder = directory.folder(), .last_step = directory.resume_step().value_or(-1), .log = hooks_.log});
}

double Trainer::elapsed_seconds() const {
  return seconds_before_ + hooks_.clock() - started_;
}

double Trainer::progress_at(int64_t step, double seconds) const {
  double value = static_cast<double>(step) / static_cast<double>(config_.num_steps());
  if (const auto& minutes = config_.training.max_minutes)
    value = std::max(value, seconds / (60.0 * *minutes));
  return std::min(value, 1.0);
}

TrainingResult Trainer::run() {
  const auto give_up = [&](const std::string& reason) {
    ranks_.world->abort(reason);  // before anything here waits for the others
    report_failure(reason);
  };
  const auto out_of_memory = [&](const char* what) {
    const auto text = out_of_memory_text(what, shards_->parameters(), *optimizer_, config_, model_->device());
    give_up(text);
    return Error(text, Error::Kind::kMemory);
  };
  try {
    return run_to_end();
  } catch (const std::bad_alloc& error) {
    throw out_of_memory(error.what());
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const bool memory = dynamic_cast<const c10::OutOfMemoryError*>(&error) ||
                        what.find("can't allocate memory") != std::string::npos;  // the CPU's allocator
    if (memory) throw out_of_memory(what.c_str());
    give_up(what);
    throw;
  } catch (const std::exception& error) {
    give_up(error.what());
    throw;
  }
}

// Decisions go by time and signals, which every rank sees a little differently: the latest time and any
// rank's signal hold for all. And what came of a save is known when all have written their part.
void Trainer::agree() {
  const bool saving = background_ && background_->running() && !background_->done();
  double seen[3] = {elapsed_seconds(), static_cast<double>(hooks_.stop_requested().value_or(0)),
                    saving ? 1.0 : 0.0};
  ranks_.world->all_reduce({seen, 3, comm::DataType::kFloat64}, comm::Reduction::kMax);
  agreed_seconds_ = seen[0];
  if (seen[1] > 0) stopped_by_ = static_cast<int>(seen[1]);
  if (seen[2] == 0) settle_save();
}

TrainingResult Trainer::run_to_end() {
  started_ = hooks_.clock();
  started_step_ = step_;
  report_running();
  TrainingResult result;
  const auto last = config_.training.exit_after;
  bool sample_is_current = false;  // scored at this very step: its metrics stand already
  if (config_.evaluation.at_start && step_ == 0) evaluate_and_emit(/*whole=*/false);
  agree();
  while (progress() < 1.0 && !(last && step_ >= *last) && !stopped_by_) {
    const StepReport report = train_step();
    hooks_.on_step(report);
    agree();
    const auto due = [&](const std::optional<int64_t>& interval) {
      return interval && step_ % *interval == 0;
    };
    sample_is_current = due(config_.evaluation.interval) && progress() < 1.0;
    if (sample_is_current) {
      result.validation = evaluate_and_emit(/*whole=*/false);
      report_running();
      agree();
    }
    if (due(config_.checkpoint.interval)) save();
  }
  result.stopped_by = stopped_by_;
  // A stopped run is not evaluated: the signal's sender is waiting.
  const bool whole = progress() >= 1.0;
  if (!result.stopped_by && (whole || !sample_is_current)) result.validation = evaluate_and_emit(whole);
  settle_save();
  if (saved_step_ != step_) save(/*last=*/true);
  result.step = step_;
  result.seconds = elapsed_seconds();
  report_end(result);
  return result;
}

void Trainer::emit(const StepReport& report, double step_seconds) {
  if (step_ % config_.logging.interval != 0 && step_ != 1) return;
  std::vector<Metric> metrics = loss_metrics("train/", report.objective, report.loss, report.bits_per_byte);
  metrics.insert(metrics.end(), {{"train/lr", report.lr},
                                 {"train/grad_norm", report.gradient_norm},
                                 {"train/tokens", static_cast<double>(tokens_)},
                                 {"train/skipped_steps", static_cast<double>(skipped_)},
                                 {"perf/tokens_per_second", report.tokens_per_second},
                                 {"perf/step_seconds", step_seconds}});
  if (report.mfu) metrics.push_back({"perf/mfu", *report.mfu});
  std::vector<LayerRouting> layers;
  const auto routers = model_->routers();
  for (size_t layer = 0; layer < counts_.size(); ++layer) {
    layers.push_back({.counts = &counts_[layer]});
    if (balance_) layers.back().bias_norm = routers.at(layer)->selection_bias().norm().item<double>();
  }
  if (most_rank_rows_ > 0 && config_.logging.moe_detail != MoeDetail::kOff) {
    metrics.push_back({"moe/most_rank_rows", static_cast<double>(most_rank_rows_)});
    if (config_.model.moe->dispatcher.on_overflow == moe::OnOverflow::kRerun)
      metrics.push_back({"train/reruns", static_cast<double>(reruns_)});
  }
  const auto routing = moe_metrics(layers, config_.logging.moe_detail);
  metrics.insert(metrics.end(), routing.begin(), routing.end());
  if (config_.logging.moe_detail != MoeDetail::kOff && !counts_.empty()) {
    const auto aux = aux_.metrics();
    metrics.insert(metrics.end(), aux.begin(), aux.end());
  }
  for (const auto& sink : sinks_) sink->emit(step_, wall_seconds(), metrics);
}

EvaluationResult Trainer::evaluate_and_emit(bool whole) {
  data::EvaluationOptions options{.micro_batch_size = config_.training.micro_batch_size};
  if (!whole) options.max_tokens = config_.evaluation_tokens();
  const data::EvaluationSet set(dataset_, options);
  auto* observer = hooks_.observer.get();
  if (observer) observer->begin({.step = step_, .whole = whole, .dataset = &dataset_});
  const auto result = evaluate(*model_, set, static_cast<uint64_t>(config_.run.seed), step_, observer);
  if (observer) observer->end();
  if (result.targets == 0) return result;  // nothing is held out
  const auto metrics =
      loss_metrics(whole ? "final/" : "valid/", result.objective, result.loss, result.bits_per_byte);
  for (const auto& sink : sinks_) sink->emit(step_, wall_seconds(), metrics);
  hooks_.on_evaluation(step_, result);
  return result;
}

}  // namespace conclave::train
