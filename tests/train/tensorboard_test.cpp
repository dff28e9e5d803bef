// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/tensorboard.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/file_writer.h"
#include "train/file_size_limit.h"
#include "train/temporary_folder.h"

namespace conclave::train {
namespace {

template <class T>
T raw(std::string_view text, size_t at) {
  T value;
  std::memcpy(&value, text.data() + at, sizeof value);
  return value;
}

uint32_t unmask(uint32_t masked) {
  const uint32_t rotated = masked - 0xA282EAD8u;
  return (rotated >> 17) | (rotated << 15);
}

// The payloads of an event file, every length and checksum checked.
std::vector<std::string> payloads(const std::string& file) {
  std::vector<std::string> result;
  for (size_t at = 0; at < file.size();) {
    const auto length = raw<uint64_t>(file, at);
    EXPECT_EQ(unmask(raw<uint32_t>(file, at + 8)), crc32c(bytes_of(std::string_view(file).substr(at, 8))));
    const std::string payload = file.substr(at + 12, length);
    EXPECT_EQ(unmask(raw<uint32_t>(file, at + 12 + length)), crc32c(bytes_of(payload)));
    result.push_back(payload);
    at += length + 16;
  }
  return result;
}

TEST(Crc32c, MatchesThePublishedVectors) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\0'))), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\xFF'))), 0x62A8AB43u);
  EXPECT_EQ(crc32c({}), 0u);
}

TEST(TensorboardWriter, WritesTheEventsOfTheFormat) {
  const TemporaryFolder folder;
  TensorboardWriter writer(folder / "tb", 1700000000.5, 0);
  const std::vector<Metric> metrics{{"a", 1.5}, {"b", -2.0}};
  writer.scalars(300, 1700000001.0, metrics);
  EXPECT_EQ(writer.path().filename(), "events.out.tfevents.1700000000.conclave");
  const auto events = payloads(read_file(writer.path()));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].substr(0, 1), "\x09");
  EXPECT_EQ(raw<double>(events[0], 1), 1700000000.5);
  EXPECT_EQ(events[0].substr(9),
            "\x1A\x0D"
            "brain.Event:2");
  EXPECT_EQ(raw<double>(events[2], 1), 1700000001.0);
  EXPECT_EQ(events[2].substr(9, 3), "\x10\xAC\x02") << "step 300 as a varint";
  const std::string a = std::string(
                            "\x0A\x08\x0A\x01"
                            "a\x15",
                            6) +
                        std::string("\0\0\xC0\x3F", 4);
  const std::string b = std::string(
                            "\x0A\x08\x0A\x01"
                            "b\x15",
                            6) +
                        std::string("\0\0\0\xC0", 4);
  EXPECT_EQ(events[2].substr(12), "\x2A\x14" + a + b);
}

TEST(TensorboardWriter, AResumedRunWritesALaterFileThatStartsASession) {
  const TemporaryFolder folder;
  const TensorboardWriter first(folder.path(), 2000.0, 0);
  const TensorboardWriter second(folder.path(), 1000.0, 7);  // the clock went back
  EXPECT_LT(first.path().filename().string(), second.path().filename().string());
  const auto events = payloads(read_file(second.path()));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].substr(9), std::string("\x10\x07\x3A\x02\x08\x01", 6))
      << "step 7, session_log {status: START}";
  EXPECT_EQ(payloads(read_file(first.path()))[1].substr(9), std::string("\x10\x00\x3A\x02\x08\x01", 6))
      << "without a first start TensorBoard would not take the second for a restart";
}

TEST(TensorboardWriter, AFailureOnTheWayIsOneWarningAndNotTheEndOfTheRun) {
  const TemporaryFolder folder;
  std::vector<std::string> warnings;
  const Log log([&](LogLevel, const std::string& text) { warnings.push_back(text); });
  const auto sinks =
      make_metrics_sinks({"tensorboard"}, builtin_metrics_sinks(), {.folder = folder.path(), .log = log});
  const std::vector<Metric> metrics{{"loss", 1.0}};
  const FileSizeLimit full_disk(64);
  for (int64_t step = 1; step < 4; ++step) sinks[0]->emit(step, 1000.0, metrics);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("metrics.jsonl goes on"), std::string::npos) << warnings[0];
}

// What TensorBoard reads out of the folder, or nothing when it is not installed.
std::optional<std::string> read_by_tensorboard(const TemporaryFolder& folder) {
  const char* chosen = std::getenv("CONCLAVE_PYTHON");
  const std::string python = chosen ? chosen : "python3";
  const std::string script = CONCLAVE_SOURCE_DIR "/tests/train/read_tensorboard.py";
  if (std::system(fmt::format("'{}' '{}' --probe 2>/dev/null", python, script).c_str()) != 0)
    return std::nullopt;
  const auto output = folder / "output.txt";
  const auto log = folder / "log.txt";
  const int status = std::system(fmt::format("'{}' '{}' '{}' >'{}' 2>'{}'", python, script,
                                             (folder / "tb").string(), output.string(), log.string())
                                     .c_str());
  EXPECT_EQ(status, 0) << read_file(log);
  return read_file(output);
}

TEST(TensorboardWriter, TensorBoardItselfShowsEveryStepOnce) {
  const TemporaryFolder folder;
  std::string torn;
  {
    TensorboardWriter writer(folder / "tb", 1000.0, 0);
    for (int64_t step = 0; step < 6; ++step) {
      writer.scalars(step, 1000.0 + static_cast<double>(step),
                     std::vector<Metric>{{"train/loss", 0.5 * step}});
    }
    writer.text(2, 1002.5, "config", "a: 1");
    writer.text(5, 1005.5, "sample", "gone");
    torn = writer.path();
  }
  std::ofstream(torn, std::ios::app | std::ios::binary) << tfrecord("cut short").substr(0, 14);  // a crash
  {
    TensorboardWriter writer(folder / "tb", 1001.0, 4);
    for (int64_t step = 4; step < 7; ++step) {
      writer.scalars(step, 2000.0 + static_cast<double>(step),
                     std::vector<Metric>{{"train/loss", 10.0 + step}});
    }
  }
  const auto output = read_by_tensorboard(folder);
  if (!output)
    GTEST_SKIP() << "no TensorBoard for python3; set CONCLAVE_PYTHON to an interpreter that has it";
  EXPECT_EQ(
      *output,
      "config 2 a: 1 1002.5\n"
      "train/loss 0 0.0 1000.0\ntrain/loss 1 0.5 1001.0\ntrain/loss 2 1.0 1002.0\ntrain/loss 3 1.5 1003.0\n"
      "train/loss 4 14.0 2004.0\ntrain/loss 5 15.0 2005.0\ntrain/loss 6 16.0 2006.0\n");
}

}  // namespace
}  // namespace conclave::train
