// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/safetensors.h"

#include <cstring>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "train/temporary_folder.h"

namespace conclave::train {
namespace {

// A file out of header text and `buffer_size` bytes; `length` replaces the true header length.
std::string safetensors_bytes(const std::string& header, size_t buffer_size, uint64_t length = UINT64_MAX) {
  const uint64_t stated = length == UINT64_MAX ? header.size() : length;
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &stated, 8);
  return bytes + header + std::string(buffer_size, '\7');
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

// The message of the refusal; "" when the file is accepted.
std::string refusal(const std::string& bytes) {
  try {
    parse_safetensors(bytes_of(bytes), "f.safetensors");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kData);
    const std::string message = error.what();
    EXPECT_NE(message.find("f.safetensors"), std::string::npos) << message;
    return message;
  }
  return "";
}

void expect_refused(const std::string& bytes, const std::string& reason) {
  const std::string message = refusal(bytes);
  EXPECT_NE(message.find(reason), std::string::npos) << "got: " << message << "\nwanted: " << reason;
}

TEST(SafetensorsReader, Rule1SizesAreCheckedBeforeAnythingIsRead) {
  expect_refused("", "at least 8");
  expect_refused(std::string(7, '\0'), "at least 8");
  expect_refused(safetensors_bytes("{}", 0, 3), "truncated");
  expect_refused(safetensors_bytes("{}", 0, 100'000'001), "limit is 100000000");
  expect_refused(safetensors_bytes("{}", 0, UINT64_MAX - 7), "limit");
  expect_refused(safetensors_bytes("", 0), "does not begin with '{'");
  EXPECT_EQ(refusal(safetensors_bytes("{}", 0)), "");
  EXPECT_EQ(refusal(safetensors_bytes("{}   ", 0)), "") << "padding by spaces is legal";
}

TEST(SafetensorsReader, Rule2HeaderIsStrictJson) {
  const std::string good = entry("F32", "[3]", "[0,12]");
  expect_refused(safetensors_bytes(" {}", 0), "does not begin with '{'");
  expect_refused(safetensors_bytes("[]", 0), "does not begin with '{'");
  expect_refused(safetensors_bytes("{\"a\":" + good + ",\"a\":" + good + "}", 12), "\"a\" stands twice");
  expect_refused(safetensors_bytes(R"({"a":{"dtype":"U8","dtype":"I8","shape":[],"data_offsets":[0,1]}})", 1),
                 "twice");
  expect_refused(safetensors_bytes("{\"a\xFF\":" + good + "}", 12), "not valid JSON");
  expect_refused(safetensors_bytes("{\"a\":" + entry("F32", "[3.0]", "[0,12]") + "}", 12), "whole number");
  expect_refused(safetensors_bytes("{\"a\":" + entry("F32", "[3e0]", "[0,12]") + "}", 12), "whole number");
  expect_refused(safetensors_bytes("{\"a\":" + entry("F32", "[-3]", "[0,12]") + "}", 12), "whole number");
  expect_refused(safetensors_bytes("{\"a\":" + entry("U8", "[0,9223372036854775808]", "[0,0]") + "}", 0),
                 "larger");
  expect_refused(safetensors_bytes("{\"a\":" + entry("U8", "[0,99999999999999999999]", "[0,0]") + "}", 0),
                 "whole");
  expect_refused(safetensors_bytes("{\"a\":" + std::string(5000, '[') + "}", 0), "nested deeper");
  expect_refused(safetensors_bytes(std::string("{}\0{}", 5), 0), "not valid JSON at byte 2");
  expect_refused(safetensors_bytes(R"({"__metadata__":{"a":1}})", 0), "expected a string");
  expect_refused(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":1}})", 1),
                 "\"x\"");
  expect_refused(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[]}})", 1), "'data_offsets' is missing");
}

TEST(SafetensorsReader, Rule3DtypesAreKnownAndFillWholeBytes) {
  expect_refused(safetensors_bytes("{\"a\":" + entry("F31", "[3]", "[0,12]") + "}", 12),
                 "tensor \"a\": unknown dtype");
  expect_refused(safetensors_bytes("{\"a\":" + entry("F4", "[3]", "[0,1]") + "}", 1), "whole bytes");
  expect_refused(safetensors_bytes("{\"a\":" + entry("F6_E2M3", "[3]", "[0,2]") + "}", 2), "whole bytes");
  EXPECT_EQ(refusal(safetensors_bytes("{\"a\":" + entry("F4", "[3,2]", "[0,3]") + "}", 3)), "");
  EXPECT_EQ(refusal(safetensors_bytes("{\"a\":" + entry("F6_E3M2", "[12]", "[0,9]") + "}", 9)), "");
  for (const char* dtype :
       {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}) {
    EXPECT_EQ(refusal(safetensors_bytes("{\"a\":" + entry(dtype, "[3]", "[0,3]") + "}", 3)), "") << dtype;
  }
  for (const char* dtype : {"C64", "F64", "I64", "U64"}) {
    EXPECT_EQ(refusal(safetensors_bytes("{\"a\":" + entry(dtype, "[3]", "[0,24]") + "}", 24)), "") << dtype;
  }
}

TEST(SafetensorsReader, Rule4ShapeAgreesWithTheBytesAndCannotOverflow) {
  expect_refused(safetensors_bytes("{\"a\":" + entry("F32", "[3]", "[0,11]") + "}", 11), "takes 12 bytes");
  expect_refused(safetensors_bytes("{\"a\":" + entry("F32", "[3]", "[12,0]") + "}", 12), "run backwards");
  expect_refused(safetensors_bytes("{\"a\":" + entry("F32", "[3]", "[0]") + "}", 12), "two numbers");
  const std::string wraps = "[4611686018427387904,4]";  // 2^62 * 4 elements is 0 modulo 2^64
  expect_refused(safetensors_bytes("{\"a\":" + entry("U8", wraps, "[0,0]") + "}", 0), "overflows");
  expect_refused(safetensors_bytes("{\"a\":" + entry("F64", "[576460752303423488]", "[0,0]") + "}", 0),
                 "overflows");
  EXPECT_EQ(refusal(safetensors_bytes("{\"a\":" + entry("F32", "[]", "[0,4]") + "}", 4)), "") << "a scalar";
  EXPECT_EQ(refusal(safetensors_bytes("{\"a\":" + entry("F32", "[3,0,5]", "[0,0]") + "}", 0)), "")
      << "no element";
}

TEST(SafetensorsReader, Rule5EveryByteBelongsToExactlyOneTensor) {
  const auto two = [](const std::string& first, const std::string& second) {
    return "{\"a\":" + entry("U8", "[5]", first) + ",\"b\":" + entry("U8", "[3]", second) + "}";
  };
  EXPECT_EQ(refusal(safetensors_bytes(two("[3,8]", "[0,3]"), 8)), "") << "any order of the keys";
  expect_refused(safetensors_bytes(two("[0,5]", "[6,9]"), 9),
                 "tensor \"b\": begins at byte 6 of the buffer, expected 5 (hole)");
  expect_refused(safetensors_bytes(two("[0,5]", "[4,7]"), 7), "expected 5 (overlap)");
  expect_refused(safetensors_bytes(two("[1,6]", "[6,9]"), 9), "expected 0 (hole)");
  expect_refused(safetensors_bytes(two("[0,5]", "[5,8]"), 9), "1 bytes at the end belong to no tensor");
  expect_refused(safetensors_bytes(two("[0,5]", "[5,8]"), 7),
                 "tensor \"b\": ends at byte 8 of the buffer, which has 7");
  expect_refused(safetensors_bytes("{}", 3), "belong to no tensor");
}

TEST(SafetensorsReader, Rule6RankAndNamesAreBoundedAndNamesAreOnlyData) {
  std::string ones = "[1";
  for (int i = 0; i < 31; ++i) ones += ",1";
  EXPECT_EQ(refusal(safetensors_bytes("{\"a\":" + entry("U8", ones + "]", "[0,1]") + "}", 1)), "");
  expect_refused(safetensors_bytes("{\"a\":" + entry("U8", ones + ",1]", "[0,1]") + "}", 1), "33 dimensions");
  const std::string name(kSafetensorsMaxNameBytes, 'n');
  EXPECT_EQ(refusal(safetensors_bytes("{\"" + name + "\":" + entry("U8", "[1]", "[0,1]") + "}", 1)), "");
  expect_refused(safetensors_bytes("{\"n" + name + "\":" + entry("U8", "[1]", "[0,1]") + "}", 1),
                 "limit is 4096");
  EXPECT_EQ(refusal(safetensors_bytes("{\"../../etc/x\":" + entry("U8", "[1]", "[0,1]") + "}", 1)), "");
}

TEST(SafetensorsReader, Rule6NumberOfTensorsIsBounded) {
  std::string header = "{";
  for (size_t i = 0; i < kSafetensorsMaxTensors + 2; ++i) {
    header += fmt::format("\"{}\":0,", i);
  }
  header.back() = '}';
  expect_refused(safetensors_bytes(header, 0), "more than 1000000 tensors");
}

TEST(SafetensorsWriter, WhatIsWrittenIsReadBack) {
  const TemporaryFolder folder;
  const std::vector<float> f{1.5f, -2.0f, 0.25f, 3.0f, 4.0f, 5.0f};
  const std::vector<int64_t> i{-7, 9, 11};
  const std::string u = "hello";
  const std::vector<TensorView> tensors{{"z.u8", "U8", {5}, bytes_of(u)},
                                        {"b.f32", "F32", {2, 3}, std::as_bytes(std::span(f))},
                                        {"a \"q\" \xC3\xA9", "F32", {}, std::as_bytes(std::span(f)).first(4)},
                                        {"none", "BF16", {3, 0}, {}},
                                        {"i", "I64", {3}, std::as_bytes(std::span(i))}};
  write_safetensors(folder / "m.safetensors", tensors, {{"step", "12"}});
  const SafetensorsFile file(folder / "m.safetensors");
  ASSERT_EQ(file.names().size(), tensors.size());
  for (const auto& tensor : tensors) {
    const auto& read = file.at(tensor.name);
    EXPECT_EQ(read.dtype, tensor.dtype);
    EXPECT_EQ(read.shape, tensor.shape);
    EXPECT_TRUE(std::equal(read.bytes.begin(), read.bytes.end(), tensor.bytes.begin(), tensor.bytes.end()));
  }
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}, {"step", "12"}}));
  EXPECT_EQ(std::filesystem::file_size(folder / "m.safetensors"),
            safetensors_size("m", tensors, {{"step", "12"}}));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"m.safetensors"}) << "no temporary file stays";
}

TEST(SafetensorsWriter, OrdersByFallingWidthThenNameAndAlignsEveryTensor) {
  const TemporaryFolder folder;
  const std::string bytes(48, 'x');
  const auto view = [&](size_t n) { return bytes_of(bytes).first(n); };
  write_safetensors(folder / "m", {{"c", "U8", {3}, view(3)},
                                   {"b", "F16", {5}, view(10)},
                                   {"d", "F64", {3}, view(24)},
                                   {"a", "F16", {1}, view(2)},
                                   {"e", "F32", {7}, view(28)}});
  const SafetensorsFile file(folder / "m");
  std::string order;
  for (const auto& tensor : file.tensors()) {
    order += tensor.name;
    const size_t width = tensor.bytes.size() / static_cast<size_t>(tensor.shape[0]);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % width, 0u) << tensor.name;
  }
  EXPECT_EQ(order, "deabc");
}

TEST(SafetensorsWriter, RefusesWhatNoReaderWouldTake) {
  const TemporaryFolder folder;
  const std::string bytes(12, 'x');
  const auto refused = [&](std::vector<TensorView> tensors, const SafetensorsMetadata& metadata = {}) {
    EXPECT_THROW(write_safetensors(folder / "m", tensors, metadata), Error);
    EXPECT_TRUE(folder.names().empty()) << "a refused file leaves nothing";
  };
  refused({{"a", "F32", {4}, bytes_of(bytes)}});
  refused({{"a", "F33", {3}, bytes_of(bytes)}});
  refused({{"a", "F32", {-3}, bytes_of(bytes)}});
  refused({{"__metadata__", "F32", {3}, bytes_of(bytes)}});
  refused({{"a", "F32", {3}, bytes_of(bytes)}, {"a", "U8", {12}, bytes_of(bytes)}});
  refused({{"a\xFF", "F32", {3}, bytes_of(bytes)}});
  refused({{"a", "F32", std::vector<int64_t>(33, 1), bytes_of(bytes).first(4)}});
  refused({}, {{"key", "\xFF"}});
}

TEST(SafetensorsWriter, Rule8SavingOverTheMappedSourceKeepsItsBytes) {
  const TemporaryFolder folder;
  const std::string bytes = "twelve bytes";
  write_safetensors(folder / "m", {{"a", "U8", {12}, bytes_of(bytes)}});
  const SafetensorsFile source(folder / "m");
  write_safetensors(folder / "m",
                    {{"b", "U8", {12}, source.at("a").bytes}, {"a", "U8", {12}, bytes_of("other bytes.")}});
  const auto kept = source.at("a").bytes;
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(kept.data()), kept.size()), bytes);
  const auto fresh = SafetensorsFile(folder / "m");
  EXPECT_TRUE(std::equal(kept.begin(), kept.end(), fresh.at("b").bytes.begin()));
}

TEST(SafetensorsFile, AMissingTensorIsNamedTogetherWithNearNames) {
  const TemporaryFolder folder;
  const std::string bytes = "abc";
  write_safetensors(folder / "m", {{"layers.0.gate.weight", "U8", {3}, bytes_of(bytes)}});
  try {
    SafetensorsFile(folder / "m").at("layers.0.gate.wieght");
    FAIL() << "found a tensor that is not there";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find((folder / "m").string()), std::string::npos) << message;
    EXPECT_NE(message.find("'layers.0.gate.wieght'"), std::string::npos) << message;
    EXPECT_NE(message.find("did you mean 'layers.0.gate.weight'"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace conclave::train
