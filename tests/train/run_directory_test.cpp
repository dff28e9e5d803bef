// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/run_directory.h"

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "train/checkpoint_example.h"

namespace conclave::train {
namespace {

// Stands for the comparison of two resolved configs.
ConfigDifferences against(const std::string& present) {
  return [present](const std::string& old) {
    return old == present ? std::vector<std::string>{}
                          : std::vector<std::string>{"training.lr: " + old + " -> " + present};
  };
}

RunDirectory open_run(const std::filesystem::path& folder, const std::string& config,
                      bool move_aside = false) {
  return RunDirectory(folder,
                      {.resolved_config = config,
                       .overrides = "training.lr=1\n",
                       .environment_json = "{}",
                       .command = "conclave train a.yaml"},
                      against(config), move_aside);
}

std::string config_error(const std::filesystem::path& folder, const std::string& config,
                         bool move_aside = false) {
  try {
    open_run(folder, config, move_aside);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

void save_checkpoint(const RunDirectory& run, int64_t step) {
  CheckpointStore(run.checkpoints()).save(example_checkpoint(step));
}

TEST(RunDirectory, ANewFolderIsMadeAndItsInputsAreFrozen) {
  const TemporaryFolder base;
  const auto run = open_run(base / "runs/one/", "1");
  EXPECT_EQ(run.start(), RunStart::kFresh);
  EXPECT_EQ(run.folder(), base / "runs/one");
  EXPECT_EQ(read_file(run.folder() / "resolved_config.yaml"), "1");
  EXPECT_EQ(read_file(run.folder() / "overrides.txt"), "training.lr=1\n");
  EXPECT_EQ(read_file(run.folder() / "environment.json"), "{}");
  EXPECT_EQ(read_file(run.folder() / "command.txt"), "conclave train a.yaml\n");
}

TEST(RunDirectory, TheSameConfigContinuesFromTheNewestCheckpoint) {
  const TemporaryFolder base;
  {
    const auto run = open_run(base / "run", "1");
    save_checkpoint(run, 4);
    save_checkpoint(run, 9);
    run.write_status({.state = RunState::kStopped, .step = 9, .exit_reason = "SIGTERM"});
  }
  const auto run = open_run(base / "run", "1");
  EXPECT_EQ(run.start(), RunStart::kContinue);
  EXPECT_EQ(run.resume_step(), 9);
  EXPECT_EQ(read_file(run.folder() / "command.txt"), "conclave train a.yaml\nconclave train a.yaml\n");
}

TEST(RunDirectory, ARunThatEndedBeforeItsFirstCheckpointStartsOver) {
  const TemporaryFolder base;
  open_run(base / "run", "1").write_status({.state = RunState::kFailed, .step = 2, .exit_reason = "x"});
  std::filesystem::create_directories(base / "run/checkpoints/step-00000002.tmp");
  const auto run = open_run(base / "run", "1");
  EXPECT_EQ(run.start(), RunStart::kFresh);
  EXPECT_EQ(run.resume_step(), std::nullopt);
}

TEST(RunDirectory, AStartCutShortBeforeTheConfigIsAFreshOne) {
  const TemporaryFolder base;
  open_run(base / "run", "1");
  std::filesystem::remove(base / "run/resolved_config.yaml");
  EXPECT_EQ(open_run(base / "run", "2").start(), RunStart::kFresh);
}

TEST(RunDirectory, AnotherConfigIsRefusedWithTheDifferenceAndTheRemedy) {
  const TemporaryFolder base;
  open_run(base / "run", "1");
  const std::string message = config_error(base / "run", "2");
  EXPECT_TRUE(contains_text(message, "training.lr: 1 -> 2")) << message;
  EXPECT_TRUE(contains_text(message, "use --fresh to move it aside or another run.output_dir")) << message;
  EXPECT_TRUE(contains_text(message, (base / "run").string())) << message;
  EXPECT_EQ(read_file(base / "run/resolved_config.yaml"), "1");
  EXPECT_EQ(read_file(base / "run/command.txt"), "conclave train a.yaml\n")
      << "a refused start leaves no mark";
}

TEST(RunDirectory, AFolderThatHoldsSomethingElseIsNeverTouched) {
  const TemporaryFolder base;
  std::filesystem::create_directory(base / "home");
  write_file_atomically(base / "home/thesis.tex", "precious");
  for (const bool move_aside : {false, true}) {
    EXPECT_TRUE(contains_text(config_error(base / "home", "1", move_aside), "'thesis.tex' is there"));
  }
  EXPECT_EQ(base.names(), std::vector<std::string>{"home"});
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(base / "home"), {}), 1);
}

TEST(RunDirectory, AFinishedRunSaysSo) {
  const TemporaryFolder base;
  {
    const auto run = open_run(base / "run", "1");
    save_checkpoint(run, 9);
    run.write_status(
        {.state = RunState::kFinished, .step = 9, .exit_reason = "reached training.train_iters"});
  }
  const auto run = open_run(base / "run", "1");
  EXPECT_EQ(run.start(), RunStart::kFinished);
  EXPECT_EQ(run.resume_step(), 9);
  EXPECT_EQ(read_file(run.folder() / "command.txt"), "conclave train a.yaml\n");
}

TEST(RunDirectory, FreshMovesTheOldFolderAsideAndKeepsIt) {
  const TemporaryFolder base;
  save_checkpoint(open_run(base / "run", "1"), 3);
  std::filesystem::create_directory(base / "run.old-1");
  const auto run = open_run(base / "run", "2", true);
  EXPECT_EQ(run.start(), RunStart::kFresh);
  EXPECT_EQ(read_file(base / "run/resolved_config.yaml"), "2");
  EXPECT_EQ(read_file(base / "run.old-2/resolved_config.yaml"), "1");
  EXPECT_EQ(CheckpointStore(base / "run.old-2/checkpoints").latest(), 3);
  EXPECT_EQ(open_run(base / "new", "1", true).start(), RunStart::kFresh) << "nothing to move";
  EXPECT_FALSE(std::filesystem::exists(base / "new.old-1"));
}

TEST(RunDirectory, TwoTrainersNeverShareAFolder) {
  const TemporaryFolder base;
  {
    const auto run = open_run(base / "run", "1");
    for (const bool move_aside : {false, true}) {
      const std::string message = message_of([&] { open_run(base / "run", "1", move_aside); });
      EXPECT_TRUE(contains_text(message, "process " + std::to_string(::getpid()) + " trains in")) << message;
    }
  }
  EXPECT_EQ(message_of([&] { open_run(base / "run", "1"); }), "") << "free once the first is gone";
}

TEST(RunDirectory, TheLockDiesWithItsProcess) {
  const TemporaryFolder base;
  std::filesystem::create_directory(base / "run");
  const pid_t child = ::fork();
  if (child == 0) {
    const RunLock lock(base / "run");
    ::_exit(0);  // no destructor runs
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(message_of([&] { RunLock(base / "run"); }), "");
}

TEST(RunDirectory, AFolderThatCannotBeMadeIsAClearError) {
  const TemporaryFolder base;
  write_file_atomically(base / "file", "x");
  const std::string message = message_of([&] { open_run(base / "file/run", "1"); });
  EXPECT_TRUE(contains_text(message, (base / "file/run").string())) << message;
  EXPECT_TRUE(contains_text(message, "choose another run.output_dir")) << message;
}

TEST(RunStatus, IsReadBackAsWritten) {
  const TemporaryFolder folder;
  EXPECT_FALSE(read_run_status(folder.path()).has_value());
  write_run_status(folder.path(),
                   {.state = RunState::kRunning, .step = 12, .exit_reason = "", .eta_seconds = 90.5});
  EXPECT_EQ(read_file(folder / kStatusFile),
            "{\"state\": \"running\", \"step\": 12, \"eta_seconds\": 90.5, \"exit_reason\": \"\"}\n");
  EXPECT_EQ(read_run_status(folder.path())->eta_seconds, 90.5);
  for (const RunState state :
       {RunState::kRunning, RunState::kFinished, RunState::kStopped, RunState::kFailed}) {
    write_run_status(folder.path(), {.state = state, .step = 13, .exit_reason = "disk \"full\"\n\xFF"});
    const auto status = read_run_status(folder.path());
    EXPECT_EQ(status->state, state);
    EXPECT_EQ(status->step, 13);
    EXPECT_EQ(status->exit_reason, "disk \"full\"\n?");
    EXPECT_EQ(status->eta_seconds, std::nullopt);
  }
  write_file_atomically(folder / kStatusFile, "{\"state\": \"gone\", \"step\": 1}");
  EXPECT_THROW(read_run_status(folder.path()), Error);
}

}  // namespace
}  // namespace conclave::train
