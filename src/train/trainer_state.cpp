// SPDX-License-Identifier: Apache-2.0
// Saving and restoring a run. Random decisions are keyed by step and token id, so there is no generator
// state; the sampler's state is a few counts.
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/json_reader.h"
#include "conclave/train/model_state.h"
#include "conclave/train/signals.h"
#include "conclave/train/trainer.h"

namespace conclave::train {

CheckpointContents Trainer::checkpoint_contents() const {
  const auto sampler = stream_->state();
  CheckpointContents contents{.step = step_, .tokens = tokens_};
  // Elapsed time belongs to the state only where the schedule reads it: a run bounded by steps is bitwise
  // repeatable.
  const double seconds = config_.training.max_minutes ? elapsed_seconds() : 0.0;
  contents.state = fmt::format(
      R"({{"optimizer_steps": {}, "skipped_steps": {}, "elapsed_seconds": {}, "consumed_samples": {}, )"
      R"("source_counts": [{}], "data_fingerprint": {}}})",
      optimizer_->num_steps(), skipped_, json_number(seconds), sampler.consumed_samples,
      fmt::join(sampler.counts, ", "), json_quote(sampler.fingerprint));
  contents.files = checkpoint_files(*shards_, named_buffers(*model_), *optimizer_);
  return contents;
}

// The last save of a run has nothing to go on to: it succeeds or the run fails.
void Trainer::save(bool last) {
  settle_save();
  if (background_ && !last) {
    background_->start(checkpoints_, checkpoint_contents());
    return;
  }
  try {
    checkpoints_.save(checkpoint_contents(), *ranks_.world);
    saved_step_ = step_;
  } catch (const Error& error) {
    if (last) throw;
    report_failed_save(step_, error);
  }
  report_running();
}

// What came of the save in the background, if there is one.
void Trainer::settle_save() {
  if (!background_ || !background_->running()) return;
  try {
    background_->finish(hooks_.log);
    saved_step_ = background_->step();
  } catch (const Error& error) {
    report_failed_save(background_->step(), error);
  }
  report_running();
}

void Trainer::report_failed_save(int64_t step, const Error& error) const {
  if (config_.checkpoint.on_save_error == OnSaveError::kStop) throw error;
  hooks_.log.error(fmt::format(
      "step {}: the checkpoint was not saved, training goes on{}: {}", step,
      saved_step_ < 0 ? "" : fmt::format(" (the last good one is step {})", saved_step_), error.what()));
}

// A convenience: that it cannot be written stops nothing.
void Trainer::report_running() const {
  RunStatus status{.state = RunState::kRunning, .step = step_};
  const double progress = progress_at(step_, elapsed_seconds());
  const double done = progress - progress_at(started_step_, seconds_before_);
  if (done > 0) status.eta_seconds = (hooks_.clock() - started_) / done * (1.0 - progress);
  try {
    directory_.write_status(status);
  } catch (const Error& error) {
    hooks_.log.warn(error.what());
  }
}

void Trainer::report_end(const TrainingResult& result) const {
  const bool finished = progress() >= 1.0;
  directory_.write_status({.state = finished ? RunState::kFinished : RunState::kStopped,
                           .step = step_,
                           .exit_reason = finished            ? "the run is complete"
                                          : result.stopped_by ? signal_name(*result.stopped_by)
                                                              : "training.exit_after"});
}

void Trainer::report_failure(const std::string& reason) const {
  try {
    directory_.write_status({.state = RunState::kFailed, .step = step_, .exit_reason = reason});
  } catch (const Error&) {  // the failure itself is told by the caller
  }
}

void Trainer::restore(int64_t step) {
  const Checkpoint checkpoint = checkpoints_.open(step);
  restore_weights(checkpoint, shards_->parameters(), named_buffers(*model_));
  restore_moments(checkpoint, *shards_, *optimizer_);
  const std::string place = (checkpoint.folder() / kStateFile).string();
  const Json json = parse_json(checkpoint.state(), place);
  const JsonReader state(json, place);
  optimizer_->set_num_steps(static_cast<int64_t>(state.at("optimizer_steps").count()));
  skipped_ = static_cast<int64_t>(state.at("skipped_steps").count());
  seconds_before_ = state.at("elapsed_seconds").number();
  data::SamplerState sampler;
  sampler.consumed_samples = static_cast<int64_t>(state.at("consumed_samples").count());
  for (const auto& count : state.at("source_counts").items()) {
    sampler.counts.push_back(static_cast<int64_t>(count.count()));
  }
  sampler.fingerprint = state.at("data_fingerprint").text();
  stream_->restore(sampler);
  step_ = saved_step_ = step;
  tokens_ = checkpoint.manifest().tokens;
  checkpoints_.protect(step);
  hooks_.log.info(fmt::format("continuing from step {}", step));
}

}  // namespace conclave::train
