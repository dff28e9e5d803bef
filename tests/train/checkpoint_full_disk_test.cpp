// SPDX-License-Identifier: Apache-2.0
#include <sys/mount.h>
#include <sys/wait.h>
#include <cstdlib>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "train/checkpoint_example.h"

namespace conclave::train {
namespace {

constexpr const char* kFolderVariable = "CONCLAVE_TEST_SMALL_DISK";

// Lets `budget` bytes through to the disk, then fails as a full disk does, in write or in finish.
class FullDisk : public FileWriter {
 public:
  FullDisk(std::unique_ptr<FileWriter> below, size_t& budget) : below_(std::move(below)), budget_(budget) {}
  void write(std::span<const std::byte> bytes) override {
    const size_t taken = std::min(bytes.size(), budget_);
    below_->write(bytes.first(taken));
    budget_ -= taken;
    if (taken < bytes.size()) throw Error("cannot write 'x': No space left on device");
  }
  void finish() override {
    if (budget_ == 0) throw Error("cannot sync 'x': No space left on device");
    below_->finish();
  }

 private:
  std::unique_ptr<FileWriter> below_;
  size_t& budget_;
};

TEST(CheckpointFullDisk, AFailureAtAnyByteLeavesNothingBehindAndOlderOnesUntouched) {
  const TemporaryFolder folder;
  CheckpointStore(folder.path()).save(example_checkpoint(1));
  size_t budget = 0;
  const auto opener = [&](const std::filesystem::path& path) {
    return std::make_unique<FullDisk>(create_disk_file(path), budget);
  };
  CheckpointStore store(folder.path(), {.keep_latest_k = 1}, {}, opener);
  int failures = 0;
  for (size_t limit = 0;; limit += 37) {
    budget = limit;
    const std::string message = message_of([&] { store.save(example_checkpoint(2)); });
    if (message.empty()) break;
    ++failures;
    ASSERT_TRUE(contains_text(message, "No space left on device")) << message;
    ASSERT_TRUE(contains_text(message, "It needs ") && contains_text(message, " bytes are free")) << message;
    ASSERT_EQ(folder.names(), (std::vector<std::string>{"latest", "step-00000001"})) << limit;
    ASSERT_EQ(message_of([&] { store.open(1).verify(); }), "") << limit;
  }
  EXPECT_GT(failures, 20);
  EXPECT_EQ(store.list(), std::vector<int64_t>{2});
  store.open(2).verify();
}

// Runs in a child with its own mounts: the folder is a file system of 256 KiB.
void check_on_small_disk(const std::filesystem::path& disk) {
  ASSERT_EQ(::mount("none", disk.c_str(), "tmpfs", 0, "size=256k"), 0);
  CheckpointStore store(disk / "checkpoints", {.keep_latest_k = 1});
  store.save(example_checkpoint(1, 100'000));
  try {
    store.save(example_checkpoint(2, 300'000));
    FAIL() << "300 kB fitted into what 256 KiB had left";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kFailed);
    const std::string message = error.what();
    EXPECT_TRUE(contains_text(message, "No space left on device")) << message;
    EXPECT_TRUE(contains_text(message, "It needs 30")) << message;
  }
  EXPECT_EQ(store.list(), std::vector<int64_t>{1});
  EXPECT_FALSE(std::filesystem::exists(disk / "checkpoints/step-00000002.tmp"));
  store.open(1).verify();
  store.save(example_checkpoint(3, 50'000));
  EXPECT_EQ(store.list(), std::vector<int64_t>{3});
}

TEST(CheckpointFullDisk, ARealFullDiskIsAClearErrorAndTheRunCanGoOn) {
  if (const char* disk = std::getenv(kFolderVariable)) return check_on_small_disk(disk);
  const TemporaryFolder folder;
  const std::string disk = folder.path().string();
  if (std::system(fmt::format("unshare -Urm mount -t tmpfs none '{}' >/dev/null 2>&1", disk).c_str()) != 0) {
    GTEST_SKIP()
        << "this machine lets an ordinary user mount no tmpfs; only the injected failures were checked";
  }
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command = fmt::format(
      "{}='{}' unshare -Urm '{}' "
      "--gtest_filter=CheckpointFullDisk.ARealFullDiskIsAClearErrorAndTheRunCanGoOn >'{}' "
      "2>&1",
      kFolderVariable, disk, self, disk + ".log");
  const int status = std::system(command.c_str());
  const std::string output = read_file(disk + ".log");
  std::filesystem::remove(disk + ".log");
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << output;
  EXPECT_TRUE(contains_text(output, "[  PASSED  ] 1 test.")) << output;
}

}  // namespace
}  // namespace conclave::train
