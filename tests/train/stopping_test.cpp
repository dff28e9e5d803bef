// SPDX-License-Identifier: Apache-2.0
// How a run ends early or late: signals, full disks, the clock.
#include <csignal>
#include <memory>

#include "conclave/train/signals.h"
#include "train/file_size_limit.h"
#include "train/small_run.h"

namespace conclave::train {
namespace {

class Stopping : public SmallRun {
 protected:
  // The disk is full while steps [from, to) are the last finished ones.
  TrainerHooks full_disk(int64_t from, int64_t to) {
    TrainerHooks hooks;
    hooks.on_step = [this, from, to](const StepReport& report) {
      if (report.step == from) limit_ = std::make_unique<FileSizeLimit>(size_t{32} << 10);
      if (report.step == to) limit_.reset();
    };
    return hooks;
  }
  void TearDown() override { limit_.reset(); }
  std::unique_ptr<FileSizeLimit> limit_;
};

TEST_F(Stopping, sigterm_finishes_the_step_saves_and_the_same_command_continues_bit_for_bit) {
  train(read("whole"));
  {
    const StopSignals signals;
    TrainerHooks hooks;
    hooks.on_step = [](const StepReport& report) {
      if (report.step == 3) std::raise(SIGTERM);
    };
    hooks.stop_requested = [&] { return signals.requested(); };
    const auto result = train(read("parts"), hooks);
    EXPECT_EQ(result.stopped_by, SIGTERM);
    EXPECT_EQ(result.step, 3);
  }
  store("parts").open(3).verify();
  EXPECT_EQ(read_run_status(folder_ / "parts")->exit_reason, "SIGTERM");
  EXPECT_EQ(train(read("parts")).step, 6);
  expect_equal_checkpoints("whole", "parts", 6);
}

TEST_F(Stopping, a_disk_that_is_full_for_a_while_costs_one_checkpoint) {
  const auto config = read("run", {"training.train_iters=9", "checkpoint.interval=3"});
  EXPECT_EQ(train(config, full_disk(5, 7)).step, 9);
  EXPECT_EQ(store("run").list(), (std::vector<int64_t>{3, 9}));
  EXPECT_TRUE(
      has(log_, "step 6: the checkpoint was not saved, training goes on (the last good one is step 3)"))
      << log_;
  EXPECT_TRUE(has(log_, "bytes are free")) << log_;
  EXPECT_EQ(metrics("run").at("train/loss").size(), 9u);
}

TEST_F(Stopping, on_save_error_stop_ends_the_run_and_keeps_the_last_good_checkpoint) {
  const auto config = read("run", {"checkpoint.interval=2", "checkpoint.on_save_error=stop"});
  const auto message = failure([&] { train(config, full_disk(3, 6)); });
  limit_.reset();
  EXPECT_TRUE(has(message, "File too large")) << message;
  EXPECT_EQ(store("run").list(), std::vector<int64_t>{2});
  store("run").open(2).verify();
  EXPECT_EQ(train(config).step, 6) << "and it can be continued";
}

TEST_F(Stopping, the_last_save_of_a_run_has_to_succeed) {
  const auto message = failure([&] { train(read("run"), full_disk(5, 99)); });
  limit_.reset();
  EXPECT_TRUE(has(message, "File too large")) << message;
  const auto status = *read_run_status(folder_ / "run");
  EXPECT_EQ(status.state, RunState::kFailed);
  EXPECT_EQ(status.exit_reason, message);
}

class TimeBound : public SmallRun {
 protected:
  // Every step takes six seconds of a clock that starts at `seconds`.
  TrainingResult train_by_clock(const RunConfig& config, double seconds, int64_t stop_after = -1) {
    int64_t steps = 0;
    TrainerHooks hooks;
    hooks.clock = [&] { return seconds; };
    hooks.on_step = [&](const StepReport&) {
      statuses_.push_back(*read_run_status(config.run.folder()));
      seconds += 6;
      ++steps;
    };
    hooks.stop_requested = [&] { return steps == stop_after ? std::optional(15) : std::nullopt; };
    return train(config, hooks);
  }
  std::vector<RunStatus> statuses_;  // in the folder when a step ends
};

TEST_F(TimeBound, a_run_of_one_minute_ends_its_schedule_with_its_last_step) {
  for (const char* type : {"cosine", "linear", "wsd"}) {
    const auto config = read(type, {"training.train_iters=1000", "training.max_minutes=1",
                                    "lr_scheduler.min_lr=0.0001", std::string("lr_scheduler.type=") + type});
    const auto result = train_by_clock(config, 17.5);
    EXPECT_EQ(result.step, 10);
    EXPECT_EQ(result.seconds, 60);
    const auto lr = metrics(type).at("train/lr");
    EXPECT_DOUBLE_EQ(lr.back(), 0.0001) << type;
    EXPECT_GT(lr[8], 0.0001) << type;
    EXPECT_EQ(read_run_status(folder_ / type)->state, RunState::kFinished);
  }
}

TEST_F(TimeBound, the_status_file_tells_step_and_remaining_time_from_the_start_on) {
  train_by_clock(
      read("run", {"training.train_iters=1000", "training.max_minutes=1", "checkpoint.interval=5"}), 0);
  EXPECT_EQ(statuses_[0].state, RunState::kRunning);
  EXPECT_EQ(statuses_[0].step, 0);
  EXPECT_EQ(statuses_[0].eta_seconds, std::nullopt);
  EXPECT_EQ(statuses_[5].step, 5);
  EXPECT_NEAR(statuses_[5].eta_seconds.value(), 30, 1e-9);
}

TEST_F(TimeBound, elapsed_time_is_in_the_checkpoint_and_the_clock_may_start_anywhere) {
  const auto config = read("run", {"training.train_iters=1000", "training.max_minutes=1"});
  EXPECT_EQ(train_by_clock(config, 1000, 4).step, 4);
  EXPECT_EQ(train_by_clock(config, 3).step, 10);
}

TEST_F(TimeBound, a_step_bound_run_reads_no_clock) {
  const auto config = read("a", {"training.train_iters=5"});
  train_by_clock(config, 0);
  train_by_clock(read("b", {"training.train_iters=5"}), 5e5);
  EXPECT_EQ(metrics("a"), metrics("b"));
  EXPECT_EQ(bytes(checkpoint("a", 5) / "state.json"), bytes(checkpoint("b", 5) / "state.json"));
}

}  // namespace
}  // namespace conclave::train
