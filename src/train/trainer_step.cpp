// SPDX-License-Identifier: Apache-2.0
// One optimizer step over all ranks. Every term that a rank hands to backward is its additive share of the
// step's objective: the sums behind its divisors (targets, tokens, micro-batches, counts) are those of all
// ranks and all micro-batches before the first backward, and every reduction afterwards is a sum.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/model/objective.h"
#include "conclave/train/trainer.h"

namespace conclave::train {

StepReport Trainer::train_step() {
  const double begin = hooks_.clock();
  StepReport report{.num_steps = config_.num_steps()};
  // The rate of a step is that of its end, so that the first step of a warm-up already moves and the last one
  // of a run bounded by time ends the schedule; it will take as long as the steps before it did on average.
  const double step_seconds =
      step_ > started_step_ ? (agreed_seconds_ - seconds_before_) / static_cast<double>(step_ - started_step_)
                            : 0.0;
  report.lr = config_.lr_scheduler.at(
      optim::RunPosition{.progress = progress_at(step_ + 1, agreed_seconds_ + step_seconds),
                         .step = step_ + 1,
                         .num_steps = report.num_steps},
      config_.optimizer.lr.at(step_));
  backward_step(report);
  gradients_->sum_over_ranks();
  // Of a pass that did not come to its end there are parts of gradients only.
  report.gradient_norm = std::isnan(report.loss) ? report.loss : gradients_->norm();
  if (std::isfinite(report.loss) && std::isfinite(report.gradient_norm)) {
    const double limit = config_.training.clip_grad.value_or(report.gradient_norm);
    optimizer_->step(report.lr, report.gradient_norm > limit ? limit / report.gradient_norm : 1.0);
    shards_->gather();
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
  report.progress = progress_at(step_, elapsed_seconds());
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

// Forward and backward of this rank's micro-batches; what they add up to, on this rank.
Trainer::StepSums Trainer::backward_micro_batches(const std::vector<data::Batch>& batches,
                                                  const moe::StepTotals& totals) {
  // Everything stays where it was computed until the last micro-batch is under way.
  StepSums sums;
  std::vector<moe::CountSums> counts;
  moe::RefusedLogits refused;
  at::Tensor nats;
  for (const auto& batch : batches) {
    auto context = training_context();
    const auto loss = model_->loss(batch, context);
    auto objective = loss.sum.div(static_cast<double>(std::max<int64_t>(totals.num_targets, 1)));
    counts.resize(context.traces.size());
    refused.add(context.traces);
    for (size_t layer = 0; layer < context.traces.size(); ++layer) {
      counts[layer].add(context.traces[layer].plan);
      most_rank_rows_ = std::max(most_rank_rows_, context.traces[layer].most_rank_rows);
    }
    objective = aux_.add_to(objective, context.traces, totals, step_);
    if (&batch == &batches.back()) gradients_->send_as_they_come();
    objective.backward();
    const auto value = loss.sum.detach().to(at::kDouble);
    nats = nats.defined() ? nats.add(value) : value;
    sums.bytes += batch.num_target_bytes;
  }
  refused.check();
  if (nats.defined()) sums.nats = nats.item<double>();
  for (const auto& layer : counts) counts_.push_back(layer.to_host());
  return sums;
}

// A router may refuse a value before the loss shows it, and a rank may get too many rows. Either is thrown by
// all ranks that share a layer's experts, at the same place, so that nobody waits inside the model for
// another.
Trainer::Outcome Trainer::attempt(const std::function<void()>& part) {
  int64_t seen[2] = {0, 0};  // diverged, rows
  try {
    part();
  } catch (const moe::RankOverflow& overflow) {
    if (config_.model.moe->dispatcher.on_overflow != moe::OnOverflow::kRerun) throw;
    seen[1] = overflow.rows();
  } catch (const Error& error) {
    if (error.kind() != Error::Kind::kDiverged || config_.training.on_nonfinite == OnNonfinite::kError) throw;
    seen[0] = 1;
  }
  ranks_.world->all_reduce({seen, 2, comm::DataType::kInt64}, comm::Reduction::kMax);
  return {.diverged = seen[0] != 0, .overflow_rows = seen[1]};
}

// Forward and backward passes of a step. Draws nothing and changes no state but gradients and counts, so that
// it can be repeated.
Trainer::Outcome Trainer::attempt_step(const std::vector<data::Batch>& batches, const moe::StepTotals& totals,
                                       StepSums& sums) {
  counts_.clear();
  most_rank_rows_ = 0;
  aux_.begin_step();
  if (aux_.needs_exact_global_counts()) {
    const auto counted = attempt([&] { counting_pass(batches); });
    if (!counted.whole()) return counted;
    aux_.sum_counts(*ranks_.world);
  }
  return attempt([&] { sums = backward_micro_batches(batches, totals); });
}

// Makes losses and counts of this rank those of all.
void Trainer::sum_over_ranks(StepSums& sums) {
  auto& world = *ranks_.world;
  aux_.sum_values(world);
  world.all_reduce({&sums.nats, 1, comm::DataType::kFloat64});
  std::vector<int64_t> numbers = {sums.bytes};
  for (const auto& c : counts_) {
    numbers.insert(numbers.end(), c.requested.begin(), c.requested.end());
    numbers.insert(numbers.end(), c.kept.begin(), c.kept.end());
  }
  world.all_reduce({numbers.data(), static_cast<int64_t>(numbers.size()), comm::DataType::kInt64});
  world.all_reduce({&most_rank_rows_, 1, comm::DataType::kInt64}, comm::Reduction::kMax);
  auto next = numbers.begin();
  sums.bytes = *next++;
  for (auto& c : counts_) {
    for (auto* part : {&c.requested, &c.kept}) {
      std::copy_n(next, part->size(), part->begin());
      next += static_cast<int64_t>(part->size());
    }
  }
}

void Trainer::backward_step(StepReport& report) {
  const double begin = hooks_.clock();
  auto& world = *ranks_.world;
  const int64_t num_micro_batches = config_.training.global_batch_size / config_.training.micro_batch_size;
  const auto samples = stream_->totals(config_.training.global_batch_size);
  // The whole step's batches first: how many tokens are hidden is known only when they are.
  std::vector<data::Batch> batches;
  int64_t num_targets = 0;
  for (int64_t i = 0; i < num_micro_batches / world.size(); ++i) {
    batches.push_back(stream_->next());
    model::set_targets(batches.back(), config_.model, *dataset_.tokenizer, training_context().random);
    num_targets += batches.back().num_targets;
  }
  world.all_reduce({&num_targets, 1, comm::DataType::kInt64});
  const moe::StepTotals totals{.num_tokens = samples.num_tokens,
                               .num_targets = num_targets,
                               .num_micro_batches = num_micro_batches,
                               .num_sequences = samples.num_sequences};
  tokens_ += totals.num_tokens;
  report.objective = config_.model.objective;
  StepSums sums;
  auto outcome = attempt_step(batches, totals, sums);
  while (outcome.overflow_rows > 0) {
    gradients_->sum_over_ranks();  // of what some ranks have begun to send
    optimizer_->zero_grad();
    hooks_.log.warn(fmt::format(
        "step {}: a rank would get {} rows, more than the rank_budget allows; the step is repeated with that",
        step_ + 1, outcome.overflow_rows));
    model_->set_rank_budget(outcome.overflow_rows);
    ++reruns_;
    outcome = attempt_step(batches, totals, sums);
  }
  if (outcome.diverged) {
    counts_.clear();
    aux_.begin_step();
    report.loss = report.bits_per_byte = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  sum_over_ranks(sums);
  report.loss = sums.nats / static_cast<double>(std::max<int64_t>(totals.num_targets, 1));
  report.bits_per_byte = sums.bytes > 0 && model::codes_text(report.objective)
                             ? sums.nats / std::numbers::ln2 / static_cast<double>(sums.bytes)
                             : 0.0;
  report.tokens_per_second = static_cast<double>(totals.num_tokens) / (hooks_.clock() - begin);
  if (peak_tokens_per_second_) report.mfu = report.tokens_per_second / *peak_tokens_per_second_;
  for (const auto& c : counts_) {
    report.load_max_over_mean += moe::load_max_over_mean(c.requested) / static_cast<double>(counts_.size());
  }
}

}  // namespace conclave::train
