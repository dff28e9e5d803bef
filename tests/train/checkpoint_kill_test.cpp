// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <gtest/gtest.h>

#include "train/checkpoint_example.h"

namespace conclave::train {
namespace {

constexpr int kKills = 40;

// Saves as fast as it can until it is killed.
[[noreturn]] void save_for_ever(const std::filesystem::path& folder, int64_t step) {
  try {
    CheckpointStore store(folder, {.keep_latest_k = 2});
    for (;; ++step) store.save(example_checkpoint(step, 20'000));
  } catch (...) {
    ::_exit(3);  // before it was killed
  }
}

TEST(CheckpointKill, AKillAtAnyMomentLeavesWholeCheckpointsAndLosesNoneThatWasThere) {
  const TemporaryFolder folder;
  CheckpointStore store(folder.path(), {.keep_latest_k = 2});
  store.save(example_checkpoint(1));
  int unfinished = 0;
  for (int kill = 0; kill < kKills; ++kill) {
    const int64_t before = store.latest().value();
    const pid_t child = ::fork();
    if (child == 0) save_for_ever(folder.path(), before + 1);
    ::usleep(static_cast<useconds_t>(2000 + 737 * kill));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "a save failed by itself";
    std::vector<std::string> ignored;
    const auto steps = store.list(&ignored);
    ASSERT_GE(store.latest().value(), before);
    for (const int64_t step : steps) ASSERT_EQ(message_of([&] { store.open(step).verify(); }), "");
    for (const auto& reason : ignored) {
      ASSERT_TRUE(contains_text(reason, ".tmp' is an unfinished save")) << reason;
      ++unfinished;
    }
  }
  store.save(example_checkpoint(store.latest().value() + 1));
  for (const auto& name : folder.names()) {
    EXPECT_TRUE(name == "latest" || name.size() == 13) << name << " was left behind";
  }
  EXPECT_GT(unfinished, 0) << "no kill met a save; the test shows nothing";
}

}  // namespace
}  // namespace conclave::train
