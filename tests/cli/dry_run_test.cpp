// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "conclave/cli/run.h"
#include "conclave/core/files.h"
#include "train/small_run.h"

namespace conclave::train {
namespace {

class DryRun : public SmallRun {
 protected:
  int conclave(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "conclave");
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    return cli::run(static_cast<int>(argv.size()), argv.data(), registry_);
  }
  // Every file below the run folder with its bytes.
  std::map<std::string, std::string> contents(const std::string& run) {
    std::map<std::string, std::string> found;
    for (const auto& item : std::filesystem::recursive_directory_iterator(folder_ / run)) {
      if (item.is_regular_file() && !item.is_symlink()) found[item.path()] = read_file(item.path());
    }
    return found;
  }
};

TEST_F(DryRun, starts_nothing_and_leaves_a_run_bit_for_bit_as_it_is) {
  const std::string file = (folder_ / "small.yaml").string();
  const std::string output = "run.output_dir=" + (folder_ / "run").string();
  EXPECT_EQ(conclave({"train", file, output, "--dry-run"}), 0);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
  ASSERT_EQ(conclave({"train", file, output, "training.exit_after=3"}), 0);
  const auto before = contents("run");
  EXPECT_GT(before.size(), 6u);
  EXPECT_EQ(conclave({"train", file, output, "training.exit_after=3", "--dry-run"}), 0);
  EXPECT_EQ(contents("run"), before);
}

TEST_F(DryRun, finds_mistakes_and_tells_the_length_of_epochs) {
  const std::string file = (folder_ / "small.yaml").string();
  EXPECT_EQ(conclave({"train", file, "--dry-run", "training.micro_batch_size=4"}), 2);
  testing::internal::CaptureStdout();
  EXPECT_EQ(conclave({"train", file, "--dry-run", "~training.train_iters", "training.train_epochs=2"}), 0);
  const auto text = testing::internal::GetCapturedStdout();
  EXPECT_TRUE(has(text, " steps of 6 sequences, 1 training sources; nothing was started")) << text;
}

}  // namespace
}  // namespace conclave::train
