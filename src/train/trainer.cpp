// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/model/objective.h"
#include "conclave/train/accounting.h"
#include "conclave/train/freeze.h"
#include "conclave/train/init_from.h"
#include "conclave/train/load_model.h"
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
                 TrainerHooks hooks)
    : config_(config),
      registry_(registry),
      directory_(directory),
      hooks_(std::move(hooks)),
      dataset_(data::open_dataset(config.data, data::make_tokenizer(config.tokenizer), hooks_.log)),
      checkpoints_(
          directory.checkpoints(),
          {.keep_latest_k = config.checkpoint.keep_latest_k, .keep_every = config.checkpoint.keep_every},
          hooks_.log) {
  const auto seed = static_cast<uint64_t>(config.run.seed);
  model_ = make_model(config, *dataset_.tokenizer, registry_);
  model_->set_recompute(config.training.recompute);
  parameters_ = nn::tagged_parameters(*model_);
  freeze_parameters(parameters_, config.training.freeze, hooks_.log);
  optimizer_ = std::make_unique<optim::AdamW>(parameters_, config.optimizer);
  if (config.model.moe) {
    aux_ = AuxObjective(config.model.moe->aux_losses, registry_);
    const auto& balance = config.model.moe->balance_update;
    balance_ = registry_.balance_updates.at(balance.type).make(balance.options);
  }
  stream_ = std::make_unique<data::BatchStream>(
      dataset_, data::StreamOptions{.seed = seed, .micro_batch_size = config.training.micro_batch_size});
  config_.sequences_per_epoch = stream_->num_windows();
  if (const auto step = directory.resume_step()) {
    restore(*step);
  } else if (const auto& from = config.checkpoint.init_from) {
    load_weights(*from, parameters_, named_buffers(*model_), hooks_.log);
  }
  if (const auto& peak = config.logging.peak_tflops) {
    peak_tokens_per_second_ = *peak * 1e12 / account_run(config, registry_).model.flops_per_token;
  }
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
  try {
    return run_to_end();
  } catch (const std::exception& error) {
    report_failure(error.what());
    throw;
  }
}

TrainingResult Trainer::run_to_end() {
  started_ = hooks_.clock();
  started_step_ = step_;
  report_running();
  TrainingResult result;
  const auto last = config_.training.exit_after;
  bool sample_is_current = false;  // scored at this very step: its metrics stand already
  if (config_.evaluation.at_start && step_ == 0) evaluate_and_emit(/*whole=*/false);
  while (progress() < 1.0 && !(last && step_ >= *last) && !(result.stopped_by = hooks_.stop_requested())) {
    const StepReport report = train_step();
    hooks_.on_step(report);
    const auto due = [&](const std::optional<int64_t>& interval) {
      return interval && step_ % *interval == 0;
    };
    sample_is_current = due(config_.evaluation.interval) && progress() < 1.0;
    if (sample_is_current) {
      result.validation = evaluate_and_emit(/*whole=*/false);
      report_running();
    }
    if (due(config_.checkpoint.interval)) save();
  }
  // A stopped run is not evaluated: the signal's sender is waiting.
  const bool whole = progress() >= 1.0;
  if (!result.stopped_by && (whole || !sample_is_current)) result.validation = evaluate_and_emit(whole);
  if (saved_step_ != step_) save(/*last=*/true);
  result.step = step_;
  result.seconds = elapsed_seconds();
  report_end(result);
  return result;
}

StepReport Trainer::train_step() {
  const double begin = hooks_.clock();
  StepReport report{.num_steps = config_.num_steps()};
  // The rate of a step is that of its end, so that the first step of a warm-up already moves and the last one
  // of a run bounded by time ends the schedule; it will take as long as the steps before it did on average.
  const double step_seconds =
      step_ > started_step_ ? (begin - started_) / static_cast<double>(step_ - started_step_) : 0.0;
  report.lr = config_.lr_scheduler.at(
      optim::RunPosition{.progress = progress_at(step_ + 1, elapsed_seconds() + step_seconds),
                         .step = step_ + 1,
                         .num_steps = report.num_steps},
      config_.optimizer.lr.at(step_));
  const int64_t end_sample = stream_->state().consumed_samples + config_.training.global_batch_size;
  const int64_t end_tokens = tokens_ + stream_->totals(config_.training.global_batch_size).num_tokens;
  try {
    backward_micro_batches(report);
  } catch (const Error& error) {  // a router may refuse a value before the loss shows it
    if (error.kind() != Error::Kind::kDiverged || config_.training.on_nonfinite == OnNonfinite::kError) throw;
    drop_step(report, end_sample, end_tokens);
  }
  report.gradient_norm = optimizer_->gradient_norm();
  if (std::isfinite(report.loss) && std::isfinite(report.gradient_norm)) {
    const double limit = config_.training.clip_grad.value_or(report.gradient_norm);
    optimizer_->step(report.lr, report.gradient_norm > limit ? limit / report.gradient_norm : 1.0);
    if (balance_) {
      const auto routers = model_->routers();
      for (size_t layer = 0; layer < routers.size(); ++layer) {
        balance_->apply(routers[layer]->selection_bias(), counts_.at(layer), step_);
      }
    }
  } else if (config_.training.on_nonfinite == OnNonfinite::kSkip) {
    report.skipped = true;
    ++skipped_;
    hooks_.log.warn(fmt::format("step {}: loss or gradient is not finite; the step is skipped", step_ + 1));
  } else {
    throw Error(fmt::format("step {}: the loss is {} and the gradient norm {}; lower optimizer.lr, or set "
                            "training.on_nonfinite: skip. The last checkpoint is step {}",
                            step_ + 1, report.loss, report.gradient_norm, saved_step_),
                Error::Kind::kDiverged);
  }
  optimizer_->zero_grad();
  ++step_;
  const double seconds = hooks_.clock() - begin;
  report.step = step_;
  report.progress = progress();
  report.seconds_left =
      report.progress > 0 ? elapsed_seconds() * (1.0 - report.progress) / report.progress : 0;
  emit(report, seconds);
  return report;
}

moe::ForwardContext Trainer::training_context() const {
  moe::ForwardContext context;
  context.step = step_;
  context.random = {.seed = static_cast<uint64_t>(config_.run.seed), .step = static_cast<uint64_t>(step_)};
  return context;
}

// Forward passes that only count, by the call that trains, so that whatever it does to the tokens is counted.
// Every random decision is keyed by seed, step and token, so nothing is drawn or changed twice.
void Trainer::counting_pass(const std::vector<data::Batch>& batches) {
  const c10::NoGradGuard no_grad;
  for (const auto& batch : batches) {
    auto context = training_context();
    model_->loss(batch, context);
    aux_.count(context.traces);
  }
}

void Trainer::backward_micro_batches(StepReport& report) {
  const double begin = hooks_.clock();
  const int64_t num_micro_batches = config_.training.global_batch_size / config_.training.micro_batch_size;
  const auto sums = stream_->totals(config_.training.global_batch_size);
  // The whole step's batches first: how many tokens are hidden is known only when they are.
  std::vector<data::Batch> batches;
  int64_t num_targets = 0;
  for (int64_t i = 0; i < num_micro_batches; ++i) {
    batches.push_back(stream_->next());
    model::set_targets(batches.back(), config_.model, *dataset_.tokenizer, training_context().random);
    num_targets += batches.back().num_targets;
  }
  const moe::StepTotals totals{.num_tokens = sums.num_tokens,
                               .num_targets = num_targets,
                               .num_micro_batches = num_micro_batches,
                               .num_sequences = sums.num_sequences};
  counts_.clear();
  aux_.begin_step();
  if (aux_.needs_exact_global_counts()) counting_pass(batches);
  double nats = 0;
  int64_t bytes = 0;
  for (const auto& batch : batches) {
    auto context = training_context();
    const auto loss = model_->loss(batch, context);
    auto objective = loss.sum.div(static_cast<double>(std::max<int64_t>(totals.num_targets, 1)));
    counts_.resize(context.traces.size());
    for (size_t layer = 0; layer < context.traces.size(); ++layer) {
      counts_[layer].add(context.traces[layer].plan);
    }
    objective = aux_.add_to(objective, context.traces, totals, step_);
    objective.backward();
    nats += loss.sum.item<double>();
    bytes += batch.num_target_bytes;
  }
  tokens_ += totals.num_tokens;
  report.loss = nats / static_cast<double>(std::max<int64_t>(totals.num_targets, 1));
  report.objective = config_.model.objective;
  report.bits_per_byte = bytes > 0 && model::codes_text(report.objective)
                             ? nats / std::numbers::ln2 / static_cast<double>(bytes)
                             : 0.0;
  report.tokens_per_second = static_cast<double>(totals.num_tokens) / (hooks_.clock() - begin);
  if (peak_tokens_per_second_) report.mfu = report.tokens_per_second / *peak_tokens_per_second_;
  for (const auto& c : counts_) {
    report.load_max_over_mean += moe::load_max_over_mean(c.requested) / static_cast<double>(counts_.size());
  }
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
