// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/checkpoint_store.h"

#include <gtest/gtest.h>

#include "train/checkpoint_example.h"

namespace conclave::train {
namespace {

using Steps = std::vector<int64_t>;

// Remembers what was said.
struct Messages {
  std::vector<std::string> texts;
  Log log() {
    return Log([this](LogLevel, const std::string& text) { texts.push_back(text); });
  }
  bool mention(const std::string& part) const {
    return std::any_of(texts.begin(), texts.end(), [&](const auto& t) { return contains_text(t, part); });
  }
};

TEST(CheckpointStore, WhatIsSavedIsReadBack) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  EXPECT_EQ(store.latest(), std::nullopt) << "before the folder exists";
  store.save(example_checkpoint(7));
  EXPECT_EQ(store.list(), Steps{7});
  const Checkpoint checkpoint = store.open(7);
  checkpoint.verify();
  EXPECT_EQ(checkpoint.folder().filename(), "step-00000007");
  EXPECT_EQ(checkpoint.manifest().tokens, 7 * 96);
  EXPECT_EQ(checkpoint.manifest().config_hash, "0123456789abcdef");
  EXPECT_EQ(checkpoint.manifest().attributes.at("world_size"), "3");
  EXPECT_EQ(checkpoint.state(), R"({"sampler":{"epoch":1}})");
  const auto model = checkpoint.file("model.safetensors");
  EXPECT_EQ(model.names(), (std::vector<std::string>{"layers.0.gate", "layers.1.gate"}));
  EXPECT_EQ(model.metadata().at("part"), "model");
  const auto expected = example_checkpoint(7).files[0].tensors[0];
  EXPECT_TRUE(
      std::equal(expected.bytes.begin(), expected.bytes.end(), model.at("layers.0.gate").bytes.begin()));
  EXPECT_TRUE(contains_text(message_of([&] { checkpoint.file("absent"); }), "it has: model.safetensors"));
  EXPECT_EQ(std::filesystem::read_symlink(store.folder() / "latest"), "step-00000007");
}

TEST(CheckpointStore, ManifestIsWrittenLastAndTheFolderAppearsWhole) {
  const TemporaryFolder folder;
  std::vector<std::string> order;
  const auto opener = [&](const std::filesystem::path& path) {
    EXPECT_FALSE(std::filesystem::exists(folder / "step-00000003")) << "visible before it was complete";
    EXPECT_EQ(path.parent_path().filename(), "step-00000003.tmp");
    order.push_back(path.filename());
    return create_disk_file(path);
  };
  CheckpointStore(folder.path(), {}, {}, opener).save(example_checkpoint(3));
  EXPECT_EQ(order, (std::vector<std::string>{"model.safetensors", "optimizer.safetensors", "state.json",
                                             "manifest.json"}));
}

TEST(CheckpointStore, RetentionCountsByStepNumberAndKeepsMilestones) {
  const TemporaryFolder folder;
  CheckpointStore store(folder.path(), {.keep_latest_k = 2, .keep_every = 30});
  for (const int64_t step : {10, 20, 30, 40, 50}) store.save(example_checkpoint(step));
  EXPECT_EQ(store.list(), (Steps{30, 40, 50}));
  store.protect(40);
  store.save(example_checkpoint(65));
  store.save(example_checkpoint(75));
  EXPECT_EQ(store.list(), (Steps{30, 40, 65, 75}));
  // Going on from an earlier step: the newest by number stay, and so does what was saved just now.
  store.save(example_checkpoint(45));
  EXPECT_EQ(store.list(), (Steps{30, 40, 45, 65, 75}));
  store.save(example_checkpoint(55));
  EXPECT_EQ(store.list(), (Steps{30, 40, 55, 65, 75}));
}

TEST(CheckpointStore, RetentionDeletesOnlyWhatItOwns) {
  const TemporaryFolder folder;
  CheckpointStore store(folder.path(), {.keep_latest_k = 1});
  const auto foreign = [&](const std::string& name) {
    std::filesystem::create_directory(folder / name);
    write_file_atomically(folder / name / "precious.txt", "mine");
  };
  for (const char* name : {"step-00000001", "step-2", "step-00000003-best", "notes", "old.tmp"})
    foreign(name);
  store.save(example_checkpoint(4));
  std::filesystem::copy(folder / "step-00000004", folder / "step-00000005",
                        std::filesystem::copy_options::recursive);
  for (const int64_t step : {8, 9}) store.save(example_checkpoint(step));
  EXPECT_EQ(folder.names(),
            (std::vector<std::string>{"latest", "notes", "old.tmp", "step-00000001", "step-00000003-best",
                                      "step-00000005", "step-00000009", "step-2"}));
  std::vector<std::string> ignored;
  EXPECT_EQ(store.list(&ignored), Steps{9});
  ASSERT_EQ(ignored.size(), 2u);
  EXPECT_TRUE(contains_text(ignored[0], "step-00000001"));
  EXPECT_TRUE(contains_text(ignored[1], "holds step 4: the folder was renamed"));
}

TEST(CheckpointStore, OldCheckpointsGoOnlyAfterTheNewOneIsThere) {
  const TemporaryFolder folder;
  const auto opener = [&](const std::filesystem::path& path) {
    if (contains_text(path.string(), "step-00000002")) {
      EXPECT_TRUE(std::filesystem::exists(folder / "step-00000001/manifest.json"));
    }
    return create_disk_file(path);
  };
  CheckpointStore store(folder.path(), {.keep_latest_k = 1}, {}, opener);
  store.save(example_checkpoint(1));
  store.save(example_checkpoint(2));
  EXPECT_EQ(store.list(), Steps{2});
}

TEST(CheckpointStore, UnfinishedSavesAreIgnoredReportedAndRemovedByTheNextSave) {
  const TemporaryFolder folder;
  Messages messages;
  CheckpointStore store(folder.path(), {}, messages.log());
  store.save(example_checkpoint(1));
  std::filesystem::rename(folder / "step-00000001", folder / "step-00000006.tmp");
  std::filesystem::create_directory(folder / "step-00000002.deleted.tmp");
  EXPECT_EQ(store.latest(), std::nullopt);
  EXPECT_TRUE(messages.mention("step-00000006.tmp' is an unfinished save"));
  store.save(example_checkpoint(3));
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"latest", "step-00000003"}));
  EXPECT_TRUE(messages.mention("removing"));
}

TEST(CheckpointStore, SavingAStepAgainReplacesItButNotAForeignFolder) {
  const TemporaryFolder folder;
  CheckpointStore store(folder.path());
  store.save(example_checkpoint(5));
  auto again = example_checkpoint(5);
  again.state = R"({"second":true})";
  store.save(again);
  EXPECT_EQ(store.open(5).state(), R"({"second":true})");
  store.open(5).verify();
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"latest", "step-00000005"}));
  std::filesystem::create_directory(folder / "step-00000006");
  write_file_atomically(folder / "step-00000006/precious.txt", "mine");
  EXPECT_TRUE(contains_text(message_of([&] { store.save(example_checkpoint(6)); }), "move it away"));
  EXPECT_EQ(read_file(folder / "step-00000006/precious.txt"), "mine");
  EXPECT_EQ(store.list(), Steps{5});
}

TEST(CheckpointStore, AFailingLinkDoesNotCostTheCheckpoint) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "latest");
  write_file_atomically(folder / "latest/in-the-way", "x");
  Messages messages;
  CheckpointStore store(folder.path(), {}, messages.log());
  store.save(example_checkpoint(2));
  store.open(2).verify();
  EXPECT_TRUE(messages.mention("the checkpoint itself is complete"));
}

TEST(CheckpointStore, RefusesContentsThatCouldNotBeReadBack) {
  const TemporaryFolder folder;
  CheckpointStore store(folder.path());
  const auto refused = [&](auto change, const std::string& reason) {
    auto contents = example_checkpoint(1);
    change(contents);
    const std::string message = message_of([&] { store.save(contents); });
    EXPECT_TRUE(contains_text(message, reason)) << message;
  };
  refused([](auto& c) { c.files[0].name = "../model"; }, "not a plain file name");
  refused([](auto& c) { c.files[0].name = "manifest.json"; }, "is taken");
  refused([](auto& c) { c.files[1].name = c.files[0].name; }, "is taken");
  refused([](auto& c) { c.state = "{"; }, "not valid JSON");
  refused([](auto& c) { c.step = -1; }, ">= 0");
  refused([](auto& c) { c.files[0].tensors[0].shape = {4}; }, "layers.0.gate");
  EXPECT_TRUE(store.list().empty());
}

TEST(CheckpointStore, OpeningAnAbsentStepListsTheStepsThereAre) {
  const TemporaryFolder folder;
  CheckpointStore store(folder.path());
  EXPECT_TRUE(contains_text(message_of([&] { store.open(4); }), "steps there: none"));
  store.save(example_checkpoint(3));
  store.save(example_checkpoint(12));
  EXPECT_TRUE(contains_text(message_of([&] { store.open(4); }), "steps there: 3, 12"));
}

}  // namespace
}  // namespace conclave::train
