// SPDX-License-Identifier: Apache-2.0
// Interrupted runs of the real program equal the uninterrupted one, bit for bit.
#include <csignal>
#include <random>

#include "tiny_run.h"

namespace conclave::cli_tests {
namespace {

class Resume : public TinyRun {
 protected:
  // Sends `signal` once the metrics show `step`.
  Ended interrupt(const std::string& run, int signal, int64_t step) {
    Program program(train_arguments(run), here());
    EXPECT_TRUE(program.wait_until([&] { return newest_step(run) >= step; })) << program.err();
    program.send(signal);
    return program.wait();
  }

  void expect_equal_runs(const std::string& got, const std::string& want) {
    EXPECT_EQ(metrics(got), metrics(want));
    const std::string last = fmt::format("/checkpoints/step-{:08}/", kTinySteps);
    for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}) {
      EXPECT_EQ(text(got + last + name), text(want + last + name)) << name;
    }
  }
};

TEST_F(Resume, a_run_killed_at_random_steps_equals_the_uninterrupted_one) {
  ASSERT_EQ(train("whole").exit_code, 0);
  const char* chosen = std::getenv("CONCLAVE_TEST_SEED");
  const unsigned seed = chosen ? static_cast<unsigned>(std::atol(chosen)) : 20240613u;
  std::mt19937 random(seed);
  std::vector<int64_t> steps;
  for (int i = 0; i < 3; ++i) steps.push_back(1 + static_cast<int64_t>(random() % (kTinySteps / 2)));
  std::sort(steps.begin(), steps.end());
  const std::string replay =
      fmt::format("CONCLAVE_TEST_SEED={}: killed at or after the steps {}", seed, fmt::join(steps, ", "));
  SCOPED_TRACE(replay);
  fmt::print("{}\n", replay);
  for (const int64_t step : steps) {
    const Ended ended = interrupt("killed", SIGKILL, step);
    ASSERT_EQ(ended.signal, SIGKILL) << "the run was over before it could be killed: " << ended.err;
  }
  const Ended last = train("killed");
  ASSERT_EQ(last.exit_code, 0) << last.err;
  expect_words(last.err, {"continuing from step"});
  expect_equal_runs("killed", "whole");
}

TEST_F(Resume, the_comparison_sees_another_seed) {
  ASSERT_EQ(train("a", {"training.exit_after=3"}).exit_code, 0);
  ASSERT_EQ(train("b", {"training.exit_after=3", "run.seed=7"}).exit_code, 0);
  EXPECT_NE(metrics("a"), metrics("b"));
  EXPECT_NE(text("a/checkpoints/step-00000003/model.safetensors"),
            text("b/checkpoints/step-00000003/model.safetensors"));
}

TEST_F(Resume, stop_signals_save_end_with_128_plus_their_number_and_the_same_command_continues) {
  ASSERT_EQ(train("whole").exit_code, 0);
  int64_t step = 5;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const Ended ended = interrupt("stopped", signal, step);
    EXPECT_EQ(ended.exit_code, 128 + signal) << ended.err;
    expect_words(ended.err, {"stopped by SIG", "after step", "the same command continues"});
    const int64_t at = newest_step("stopped");
    EXPECT_TRUE(
        std::filesystem::exists(path(fmt::format("stopped/checkpoints/step-{:08}/manifest.json", at))));
    EXPECT_NE(text("stopped/STATUS.json").find("\"stopped\""), std::string::npos);
    step = at + 5;
  }
  ASSERT_EQ(train("stopped").exit_code, 0);
  expect_equal_runs("stopped", "whole");
}

TEST_F(Resume, a_run_continues_past_an_early_stop) {
  const Ended early = train("run", {"training.train_iters=6", "training.exit_after=2"});
  ASSERT_EQ(early.exit_code, 0) << early.err;
  EXPECT_EQ(newest_step("run"), 2);
  ASSERT_EQ(train("run", {"training.train_iters=6", "training.exit_after=4"}).exit_code, 0);
  ASSERT_EQ(train("run", {"training.train_iters=6"}).exit_code, 0);
  EXPECT_EQ(newest_step("run"), 6);
}

TEST_F(Resume, a_finished_run_shows_its_result_and_touches_nothing) {
  const Ended first = train("run", {"training.train_iters=5"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  expect_words(first.out, {"run: step 5, held-out loss ", " bits/byte over ", " bytes, "});
  const std::string before = text("run/metrics.jsonl");
  const Ended again = train("run", {"training.train_iters=5"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  const size_t at = first.out.find(" bits/byte") - 6;
  expect_words(again.out, {"run is finished: ", first.out.substr(at, 6), " bits per byte"});
  EXPECT_EQ(text("run/metrics.jsonl"), before);
}

TEST_F(Resume, fresh_moves_the_old_run_aside) {
  ASSERT_EQ(train("run", {"training.train_iters=2"}).exit_code, 0);
  const std::string old = text("run/metrics.jsonl");
  const Ended ended = train("run", {"training.train_iters=3", "--fresh"});
  ASSERT_EQ(ended.exit_code, 0) << ended.err;
  expect_words(ended.err, {"the old run was moved to", "run.old-1"});
  EXPECT_EQ(text("run.old-1/metrics.jsonl"), old);
  EXPECT_EQ(newest_step("run"), 3);
}

TEST_F(Resume, a_dry_run_starts_and_writes_nothing_but_the_token_cache) {
  const Ended ended = train("run", {"--dry-run"});
  EXPECT_EQ(ended.exit_code, 0) << ended.err;
  expect_words(ended.out, {"tiny.yaml is valid: 40 steps of 6 sequences", "nothing was started"});
  EXPECT_EQ(folder_.names(), (std::vector<std::string>{"cache", "text.txt", "tiny.yaml"}));
}

TEST_F(Resume, a_flipped_byte_in_a_checkpoint_is_refused_with_the_tensors_name) {
  ASSERT_EQ(train("run", {"training.exit_after=2"}).exit_code, 0);
  const std::string file = "run/checkpoints/step-00000002/model.safetensors";
  std::string bytes = text(file);
  bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 0x04);
  write(file, bytes);
  for (const auto& command :
       {train_arguments("run", {"training.exit_after=2"}),
        std::vector<std::string>{"checkpoint", "verify", "run/checkpoints/step-00000002"}}) {
    const Ended ended = conclave(command);
    EXPECT_EQ(ended.exit_code, 3) << ended.err;
    expect_words(ended.err, {"model.safetensors", "damaged tensors: norm.weight", "use another checkpoint"});
  }
}

}  // namespace
}  // namespace conclave::cli_tests
