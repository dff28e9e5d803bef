// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/safetensors_index.h"

#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "train/temporary_folder.h"

namespace conclave::train {
namespace {

class SafetensorsIndex : public testing::Test {
 protected:
  void SetUp() override {
    write_safetensors(folder_ / "one.safetensors",
                      {{"a", "U8", {3}, bytes_of("abc")}, {"b", "U8", {2}, bytes_of("de")}});
    write_safetensors(folder_ / "two.safetensors", {{"c", "U8", {1}, bytes_of("f")}});
  }
  std::string refusal(const std::string& weight_map) {
    write_file_atomically(index_, R"({"metadata":{"total_size":6},"weight_map":)" + weight_map + "}");
    try {
      const ShardedSafetensors shards(index_);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kData);
      return error.what();
    }
    return "";
  }
  TemporaryFolder folder_;
  std::filesystem::path index_ = folder_ / "model.safetensors.index.json";
};

TEST_F(SafetensorsIndex, Rule7ShardsAreReadThroughTheIndex) {
  ASSERT_EQ(refusal(R"({"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"})"), "");
  const ShardedSafetensors shards(index_);
  EXPECT_EQ(shards.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(static_cast<char>(shards.at("c").bytes[0]), 'f');
  EXPECT_THROW(shards.at("d"), Error);
}

TEST_F(SafetensorsIndex, Rule7ShardNamesCannotLeaveTheFolder) {
  std::filesystem::create_directory(folder_ / "sub");
  std::filesystem::copy_file(folder_ / "two.safetensors", folder_ / "sub/two.safetensors");
  for (const std::string name : {"sub/two.safetensors", "../two.safetensors", "..", ".", "",
                                 "sub\\\\two.safetensors", "/etc/passwd", "two.safetensors\\u0000"}) {
    EXPECT_NE(refusal("{\"c\":\"" + name + "\"}").find("refused"), std::string::npos) << name;
  }
}

TEST_F(SafetensorsIndex, Rule7MissingAndUnexpectedTensorsAreReportedApart) {
  const std::string message =
      refusal(R"({"a":"one.safetensors","x":"one.safetensors","b":"two.safetensors"})");
  EXPECT_NE(message.find("2 missing in the shards: b (in two.safetensors), x (in one.safetensors)"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("2 not in the index: b (in one.safetensors), c (in two.safetensors)"),
            std::string::npos)
      << message;
}

TEST_F(SafetensorsIndex, Rule7TheIndexIsStrictJson) {
  EXPECT_NE(refusal(R"({"a":"one.safetensors","a":"two.safetensors"})").find("stands twice"),
            std::string::npos);
  EXPECT_NE(refusal("[]").find("expected a map"), std::string::npos);
  EXPECT_NE(refusal(R"({"a":1})").find("expected a string"), std::string::npos);
  EXPECT_NE(refusal(R"({"a":"absent.safetensors"})").find("absent.safetensors"), std::string::npos);
}

}  // namespace
}  // namespace conclave::train
