// SPDX-License-Identifier: Apache-2.0
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "train/checkpoint_example.h"

namespace conclave::train {
namespace {

void overwrite(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

// Opens and verifies; the message of the refusal, "" when nothing was noticed.
std::string verification(const CheckpointStore& store, int64_t step) {
  return message_of([&] { store.open(step).verify(); });
}

class CheckpointDamage : public testing::Test {
 protected:
  void SetUp() override { store_.save(example_checkpoint(9)); }
  std::filesystem::path file(const std::string& name) const { return store_.step_folder(9) / name; }
  TemporaryFolder folder_;
  CheckpointStore store_{folder_.path()};
};

TEST_F(CheckpointDamage, EveryFlippedBitOfEveryFileIsNoticed) {
  ASSERT_EQ(verification(store_, 9), "");
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}) {
    const std::string good = read_file(file(name));
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
      overwrite(file(name), bad);
      ASSERT_NE(verification(store_, 9), "") << name << " byte " << i;
    }
    overwrite(file(name), good);
  }
  EXPECT_EQ(verification(store_, 9), "");
}

TEST_F(CheckpointDamage, AFlippedByteOfATensorIsRefusedWithItsName) {
  const auto model = file("model.safetensors");
  std::string bytes = read_file(model);
  bytes[bytes.size() - 3] ^= 4;  // the BF16 tensor stands last
  overwrite(model, bytes);
  EXPECT_TRUE(contains_text(verification(store_, 9), "damaged tensors: layers.1.gate;"))
      << verification(store_, 9);
  EXPECT_TRUE(contains_text(verification(store_, 9), model.string()));
  EXPECT_NE(message_of([&] { store_.open(9).file("model.safetensors"); }), "") << "use without verify";
  EXPECT_EQ(message_of([&] { store_.open(9).file("optimizer.safetensors"); }), "")
      << "the other file is whole";
  EXPECT_EQ(store_.open(9).problems().size(), 1u);
}

TEST_F(CheckpointDamage, TruncatedOrMissingFilesMakeAFolderNoCheckpoint) {
  const std::string good = read_file(file("optimizer.safetensors"));
  overwrite(file("optimizer.safetensors"), good.substr(0, good.size() - 1));
  EXPECT_TRUE(store_.list().empty());
  EXPECT_TRUE(contains_text(verification(store_, 9), "its manifest says"));
  std::filesystem::remove(file("optimizer.safetensors"));
  EXPECT_TRUE(store_.list().empty());
  overwrite(file("optimizer.safetensors"), good);
  EXPECT_EQ(store_.latest(), 9);
  std::filesystem::remove(file("manifest.json"));
  EXPECT_EQ(store_.latest(), std::nullopt);
}

TEST_F(CheckpointDamage, AFileOfAnotherCheckpointIsNoticed) {
  store_.save(example_checkpoint(11));
  std::filesystem::copy_file(store_.step_folder(11) / "model.safetensors", file("model.safetensors"),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(contains_text(verification(store_, 9), "damaged tensors: layers.0.gate, layers.1.gate"));
}

TEST_F(CheckpointDamage, TensorsAddedOrRemovedAreNamed) {
  auto contents = example_checkpoint(9);
  contents.files[0].tensors[1].name = "layers.2.gate";  // same size, other name
  write_safetensors(file("model.safetensors"), contents.files[0].tensors, contents.files[0].metadata);
  const std::string message = verification(store_, 9);
  EXPECT_TRUE(contains_text(message, "tensors that the manifest lacks: layers.2.gate")) << message;
  EXPECT_TRUE(contains_text(message, "missing tensors: layers.1.gate")) << message;
}

TEST_F(CheckpointDamage, AManifestOfAnotherVersionOrWithForeignPathsIsRefused) {
  auto manifest = store_.open(9).manifest();
  manifest.files[0].name = "../outside";
  EXPECT_THROW(parse_manifest(render_manifest(manifest), "m"), Error);
  std::string text = read_file(file("manifest.json"));
  const size_t at = text.find("\"format_version\": 1");
  text[at + 18] = '2';
  const size_t body = text.find("\"manifest\":") + 11;
  const std::string_view checked = std::string_view(text).substr(body, text.size() - body - 2);
  std::string stamped = text;
  stamped.replace(text.find(':') + 2, 16, fmt::format("{:016x}", xxh3_64(bytes_of(checked))));
  EXPECT_TRUE(contains_text(message_of([&] { parse_manifest(stamped, "m"); }), "format version 2"));
  EXPECT_TRUE(contains_text(message_of([&] { parse_manifest(text, "m"); }), "changed or damaged"));
}

}  // namespace
}  // namespace conclave::train
