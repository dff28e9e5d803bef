// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/model_state.h"
#include "conclave/train/moe_metrics.h"

namespace conclave::train {

namespace {

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
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
  const auto dtype = config.training.precision == Precision::kFp64 ? at::kDouble : at::kFloat;
  const auto seed = static_cast<uint64_t>(config.run.seed);
  model_ = std::make_shared<model::LanguageModel>(
      config.model, config.model.vocab_size.value_or(dataset_.tokenizer->vocab_size()), registry_, seed,
      dtype);
  parameters_ = nn::tagged_parameters(*model_);
  optimizer_ = std::make_unique<optim::AdamW>(parameters_, config.optimizer);
  if (config.model.moe) {
    for (const auto& loss : config.model.moe->aux_losses) {
      aux_losses_.push_back(registry_.aux_losses.at(loss.type).make(loss.options));
      aux_names_.push_back(fmt::format("moe/{}", loss.type));
    }
    const auto& balance = config.model.moe->balance_update;
    balance_ = registry_.balance_updates.at(balance.type).make(balance.options);
  }
  stream_ = std::make_unique<data::BatchStream>(
      dataset_, data::StreamOptions{.seed = seed, .micro_batch_size = config.training.micro_batch_size});
  if (const auto step = directory.resume_step()) restore(*step);
  sinks_ = make_metrics_sinks(
      config.logging.metrics, builtin_metrics_sinks(),
      {.folder = directory.folder(), .last_step = directory.resume_step().value_or(-1), .log = hooks_.log});
}

double Trainer::elapsed_seconds() const {
  return seconds_before_ + monotonic_seconds() - started_;
}

double Trainer::progress() const {
  double value = static_cast<double>(step_) / static_cast<double>(config_.num_steps());
  if (const auto& minutes = config_.training.max_minutes)
    value = std::max(value, elapsed_seconds() / (60.0 * *minutes));
  return std::min(value, 1.0);
}

TrainingResult Trainer::run() {
  started_ = monotonic_seconds();
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
    if (sample_is_current) result.validation = evaluate_and_emit(/*whole=*/false);
    if (due(config_.checkpoint.interval)) save();
  }
  // A stopped run is not evaluated: the signal's sender is waiting.
  const bool whole = progress() >= 1.0;
  if (!result.stopped_by && (whole || !sample_is_current)) result.validation = evaluate_and_emit(whole);
  if (saved_step_ != step_) save();
  result.step = step_;
  result.seconds = elapsed_seconds();
  const bool finished = progress() >= 1.0;
  directory_.write_status({.state = finished ? RunState::kFinished : RunState::kStopped,
                           .step = step_,
                           .exit_reason = finished            ? "the run is complete"
                                          : result.stopped_by ? "signal"
                                                              : "exit_after"});
  return result;
}

StepReport Trainer::train_step() {
  const double begin = monotonic_seconds();
  StepReport report{.num_steps = config_.num_steps()};
  // The rate of a step is that of its end, so that the first step of a warm-up already moves.
  const double one_step = 1.0 / static_cast<double>(config_.num_steps());
  report.lr = config_.lr_scheduler.at(progress() + one_step, config_.optimizer.lr);
  backward_micro_batches(report);
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
  } else if (config_.training.skip_nonfinite) {
    report.skipped = true;
    ++skipped_;
    hooks_.log.warn(fmt::format("step {}: loss or gradient is not finite; the step is skipped", step_ + 1));
  } else {
    throw Error(fmt::format("step {}: the loss is {} and the gradient norm {}; lower optimizer.lr, or set "
                            "training.skip_nonfinite: true. The last checkpoint is step {}",
                            step_ + 1, report.loss, report.gradient_norm, saved_step_),
                Error::Kind::kDiverged);
  }
  optimizer_->zero_grad();
  ++step_;
  const double seconds = monotonic_seconds() - begin;
  report.step = step_;
  report.progress = progress();
  report.seconds_left =
      report.progress > 0 ? elapsed_seconds() * (1.0 - report.progress) / report.progress : 0;
  emit(report, seconds);
  return report;
}

void Trainer::backward_micro_batches(StepReport& report) {
  const double begin = monotonic_seconds();
  const int64_t num_micro_batches = config_.training.global_batch_size / config_.training.micro_batch_size;
  const auto sums = stream_->totals(config_.training.global_batch_size);
  const moe::StepTotals totals{.num_tokens = sums.num_tokens,
                               .num_targets = sums.num_targets,
                               .num_micro_batches = num_micro_batches,
                               .num_sequences = sums.num_sequences};
  counts_.clear();
  std::vector<double> aux_sums(aux_losses_.size(), 0.0);
  double nats = 0;
  int64_t bytes = 0;
  for (int64_t i = 0; i < num_micro_batches; ++i) {
    const data::Batch batch = stream_->next();
    moe::ForwardContext context;
    context.step = step_;
    context.random = {.seed = static_cast<uint64_t>(config_.run.seed), .step = static_cast<uint64_t>(step_)};
    const auto loss = model_->loss(batch, context);
    auto objective = loss.sum.div(static_cast<double>(std::max<int64_t>(totals.num_targets, 1)));
    counts_.resize(context.traces.size());
    for (size_t layer = 0; layer < context.traces.size(); ++layer) {
      counts_[layer].add(context.traces[layer].plan);
      for (size_t a = 0; a < aux_losses_.size(); ++a) {
        const auto share = aux_losses_[a]->share(context.traces[layer], totals);
        aux_sums[a] += share.item<double>();
        objective = objective.add(share, aux_losses_[a]->weight(step_));
      }
    }
    objective.backward();
    nats += loss.sum.item<double>();
    bytes += batch.num_target_bytes;
  }
  tokens_ += totals.num_tokens;
  report.loss = nats / static_cast<double>(std::max<int64_t>(totals.num_targets, 1));
  report.bits_per_byte = bytes > 0 ? nats / std::numbers::ln2 / static_cast<double>(bytes) : 0.0;
  report.tokens_per_second = static_cast<double>(totals.num_tokens) / (monotonic_seconds() - begin);
  aux_metrics_.clear();
  for (size_t a = 0; a < aux_losses_.size(); ++a) {
    aux_metrics_.push_back(
        {aux_names_[a], aux_sums[a] / static_cast<double>(std::max<size_t>(counts_.size(), 1))});
  }
  for (const auto& c : counts_) {
    report.load_max_over_mean += moe::load_max_over_mean(c.requested) / static_cast<double>(counts_.size());
  }
}

void Trainer::emit(const StepReport& report, double step_seconds) {
  if (step_ % config_.logging.interval != 0 && step_ != 1) return;
  std::vector<Metric> metrics = {{"train/loss", report.loss},
                                 {"train/bits_per_byte", report.bits_per_byte},
                                 {"train/lr", report.lr},
                                 {"train/grad_norm", report.gradient_norm},
                                 {"train/tokens", static_cast<double>(tokens_)},
                                 {"train/skipped_steps", static_cast<double>(skipped_)},
                                 {"perf/tokens_per_second", report.tokens_per_second},
                                 {"perf/step_seconds", step_seconds}};
  std::vector<LayerRouting> layers;
  const auto routers = model_->routers();
  for (size_t layer = 0; layer < counts_.size(); ++layer) {
    layers.push_back({.counts = &counts_[layer]});
    if (balance_) layers.back().bias_norm = routers.at(layer)->selection_bias().norm().item<double>();
  }
  const auto routing = moe_metrics(layers, config_.logging.moe_detail);
  metrics.insert(metrics.end(), routing.begin(), routing.end());
  if (config_.logging.moe_detail != MoeDetail::kOff) {
    metrics.insert(metrics.end(), aux_metrics_.begin(), aux_metrics_.end());
  }
  for (const auto& sink : sinks_) sink->emit(step_, wall_seconds(), metrics);
}

EvaluationResult Trainer::evaluate_and_emit(bool whole) {
  data::EvaluationOptions options{.micro_batch_size = config_.training.micro_batch_size};
  if (!whole) options.max_tokens = config_.evaluation.sample_tokens;
  const data::EvaluationSet set(dataset_, options);
  auto* observer = hooks_.observer.get();
  if (observer) observer->begin({.step = step_, .whole = whole, .dataset = &dataset_});
  const auto result = evaluate(*model_, set, static_cast<uint64_t>(config_.run.seed), step_, observer);
  if (observer) observer->end();
  if (result.targets == 0) return result;  // nothing is held out
  const std::string prefix = whole ? "final" : "valid";
  const std::vector<Metric> metrics = {{prefix + "/loss", result.loss},
                                       {prefix + "/bits_per_byte", result.bits_per_byte}};
  for (const auto& sink : sinks_) sink->emit(step_, wall_seconds(), metrics);
  hooks_.on_evaluation(step_, result);
  return result;
}

}  // namespace conclave::train
