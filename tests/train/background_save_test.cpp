// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/background_save.h"

#include <cstring>
#include <future>

#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "train/temporary_folder.h"

namespace conclave::train {
namespace {

TEST(BackgroundSave, writes_the_values_of_its_start_while_they_change) {
  const TemporaryFolder folder;
  std::promise<void> gate;
  const auto opened = gate.get_future().share();
  const CheckpointStore store(folder / "checkpoints", {}, {}, [opened](const std::filesystem::path& path) {
    opened.wait();
    return create_disk_file(path);
  });
  std::vector<float> values = {1, 2, 3};
  CheckpointContents contents{.step = 7, .tokens = 5};
  contents.files = {
      {.name = "model.safetensors", .tensors = {{"w", "F32", {3}, std::as_bytes(std::span(values))}}}};
  BackgroundSave save(comm::make_single_communicator());
  EXPECT_FALSE(save.running());
  save.finish({});  // nothing to wait for
  save.start(store, contents);
  EXPECT_TRUE(save.running());
  EXPECT_FALSE(save.done());
  EXPECT_THROW(save.start(store, contents), Error);
  values = {9, 9, 9};
  gate.set_value();
  save.finish({});
  EXPECT_TRUE(save.done());
  EXPECT_EQ(save.step(), 7);
  const auto file = store.open(7).file("model.safetensors");
  float read[3];
  std::memcpy(read, file.at("w").bytes.data(), sizeof read);
  EXPECT_EQ(std::vector<float>(read, read + 3), (std::vector<float>{1, 2, 3}));
}

TEST(BackgroundSave, tells_what_went_wrong_when_it_is_finished) {
  const TemporaryFolder folder;
  const CheckpointStore store(
      folder / "checkpoints", {}, {},
      [](const std::filesystem::path&) -> std::unique_ptr<FileWriter> { throw Error("no space"); });
  BackgroundSave save(comm::make_single_communicator());
  save.start(store, {.step = 1, .files = {{.name = "model.safetensors"}}});
  EXPECT_THROW(save.finish({}), Error);
  EXPECT_FALSE(save.running());
  EXPECT_TRUE(store.list().empty());
}

}  // namespace
}  // namespace conclave::train
