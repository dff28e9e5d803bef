// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/metrics.h"

#include <cmath>
#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "train/file_size_limit.h"
#include "train/temporary_folder.h"

namespace conclave::train {
namespace {

using Steps = std::vector<int64_t>;

std::unique_ptr<MetricsSink> jsonl(const TemporaryFolder& folder, int64_t last_step = -1) {
  return std::move(make_metrics_sinks({"jsonl"}, builtin_metrics_sinks(),
                                      {.folder = folder.path(), .last_step = last_step})[0]);
}

void emit(MetricsSink& sink, int64_t step, std::vector<Metric> metrics) {
  sink.emit(step, 1000.5 + static_cast<double>(step), metrics);
}

std::string file_of(const TemporaryFolder& folder) {
  return read_file(folder / kMetricsFile);
}

void append(const TemporaryFolder& folder, const std::string& text) {
  std::ofstream(folder / kMetricsFile, std::ios::app | std::ios::binary) << text;
}

TEST(JsonlMetrics, OneObjectALineWithShortestDigits) {
  const TemporaryFolder folder;
  const auto sink = jsonl(folder);
  emit(*sink, 3, {{"train/loss", 0.1}, {"a \"b\"", 1e-7}, {"whole", 12.0}});
  EXPECT_EQ(file_of(folder),
            "{\"step\":3,\"time\":1003.5,\"train/loss\":0.1,\"a \\\"b\\\"\":1e-07,\"whole\":12}\n");
}

TEST(JsonlMetrics, ValuesReadBackExactlyAndNonFiniteOnesAsNaN) {
  const TemporaryFolder folder;
  const auto sink = jsonl(folder);
  const double third = 1.0 / 3.0, infinity = std::numeric_limits<double>::infinity();
  emit(*sink, 0, {{"x", third}, {"y", infinity}});
  emit(*sink, 5, {{"x", 5e-324}, {"y", std::nan("")}});
  emit(*sink, 5, {{"eval/loss", -1.25}});
  EXPECT_NE(file_of(folder).find("\"y\":null"), std::string::npos);
  const auto series = read_metrics(folder / kMetricsFile);
  EXPECT_EQ(series.at("x").values, (std::vector<double>{third, 5e-324}));
  EXPECT_EQ(series.at("x").steps, (Steps{0, 5}));
  EXPECT_EQ(series.at("x").times, (std::vector<double>{1000.5, 1005.5}));
  EXPECT_TRUE(std::isnan(series.at("y").values[0]) && std::isnan(series.at("y").values[1]));
  EXPECT_EQ(series.at("eval/loss").steps, Steps{5});
}

TEST(JsonlMetrics, AfterAResumeEachStepStandsOnce) {
  const TemporaryFolder folder;
  {
    const auto sink = jsonl(folder);
    for (int64_t step = 0; step < 9; ++step) emit(*sink, step, {{"loss", 10.0 + static_cast<double>(step)}});
  }
  append(folder, R"({"step":9,"time":10)");  // the crash tore the last line
  EXPECT_EQ(read_metrics(folder / kMetricsFile).at("loss").steps.size(), 9u);
  {
    const auto sink = jsonl(folder, 5);
    EXPECT_EQ(read_metrics(folder / kMetricsFile).at("loss").steps, (Steps{0, 1, 2, 3, 4, 5}));
    EXPECT_THROW(emit(*sink, 5, {{"loss", 1.0}}), Error) << "stands already";
    EXPECT_THROW(emit(*sink, 4, {{"loss", 1.0}}), Error);
    emit(*sink, 5, {{"eval/loss", 2.0}});
    emit(*sink, 6, {{"loss", 99.0}});
  }
  const auto loss = read_metrics(folder / kMetricsFile).at("loss");
  EXPECT_EQ(loss.steps, (Steps{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(loss.values.back(), 99.0);
  jsonl(folder, -1);
  EXPECT_EQ(file_of(folder), "") << "a run from nothing has no old metrics";
  EXPECT_EQ(folder.names(), std::vector<std::string>{kMetricsFile}) << "no temporary file stays";
}

TEST(JsonlMetrics, WhatAnEarlierStartGaveAtTheSameStepStandsOnceAndGivenTwiceByOneStartIsAnError) {
  const TemporaryFolder folder;
  emit(*jsonl(folder), 4, {{"final/loss", 2.5}});
  const std::string before = file_of(folder);
  const auto again = jsonl(folder, 4);
  emit(*again, 4, {{"final/loss", 2.5}});
  EXPECT_EQ(file_of(folder), before);
  EXPECT_THROW(emit(*again, 4, {{"final/loss", 2.5}}), Error);
  emit(*again, 4, {{"valid/loss", 3.0}});
  EXPECT_EQ(read_metrics(folder / kMetricsFile).at("valid/loss").steps, Steps{4});
}

TEST(JsonlMetrics, AResumeWithNothingToDropLeavesTheFileAlone) {
  const TemporaryFolder folder;
  emit(*jsonl(folder), 2, {{"loss", 1.0}});
  const auto before = std::filesystem::last_write_time(folder / kMetricsFile);
  rewind_metrics(folder / kMetricsFile, 2);
  EXPECT_EQ(std::filesystem::last_write_time(folder / kMetricsFile), before);
  rewind_metrics(folder / "absent.jsonl", 2);
  EXPECT_FALSE(std::filesystem::exists(folder / "absent.jsonl"));
}

TEST(JsonlMetrics, ReadingToleratesNothingButATornLastLine) {
  const auto refusal = [](const std::string& text) -> std::string {
    const TemporaryFolder folder;
    append(folder, text);
    try {
      read_metrics(folder / kMetricsFile);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const std::string good = "{\"step\":1,\"time\":2,\"a\":3}\n";
  EXPECT_EQ(refusal(good), "");
  EXPECT_EQ(refusal(good + "{\"step\":2,\"ti"), "");
  EXPECT_EQ(refusal(""), "");
  EXPECT_NE(refusal(good + "{\"step\":2,\"ti\n").find("metrics.jsonl:2"), std::string::npos);
  EXPECT_NE(refusal(good + "\n" + good).find("metrics.jsonl:2"), std::string::npos);
  EXPECT_NE(refusal("{\"time\":2,\"a\":3}\n").find("'step' is missing"), std::string::npos);
  EXPECT_NE(refusal("{\"step\":1,\"time\":2,\"a\":\"3\"}\n").find("expected a number"), std::string::npos);
  EXPECT_NE(refusal("{\"step\":1,\"time\":2,\"a\":3,\"a\":4}\n").find("stands twice"), std::string::npos);
  EXPECT_NE(refusal(good + good).find("'a' stands twice at step 1"), std::string::npos);
  EXPECT_NE(refusal(good + "{\"step\":0,\"time\":2,\"a\":3}\n").find("step 0 stands behind step 1"),
            std::string::npos);
}

TEST(JsonlMetrics, NamesThatCannotBeReadBackAreRefused) {
  const TemporaryFolder folder;
  const auto sink = jsonl(folder);
  EXPECT_THROW(emit(*sink, 1, {{"step", 1.0}}), Error);
  EXPECT_THROW(emit(*sink, 1, {{"a", 1.0}, {"a", 2.0}}), Error);
  EXPECT_THROW(emit(*sink, 1, {{"", 1.0}}), Error);
  EXPECT_THROW(emit(*sink, 1, {{"\xFF", 1.0}}), Error);
  EXPECT_THROW(emit(*sink, -1, {{"a", 1.0}}), Error);
  EXPECT_EQ(file_of(folder), "");
}

TEST(JsonlMetrics, AFullDiskIsAnErrorAndLeavesNoHalfLine) {
  const TemporaryFolder folder;
  const auto sink = jsonl(folder);
  emit(*sink, 1, {{"loss", 1.0}});
  std::string message;
  try {
    const FileSizeLimit full_disk(file_of(folder).size() + 7);
    emit(*sink, 2, {{"loss", 2.0}});
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("cannot write '" + (folder / kMetricsFile).string()), std::string::npos) << message;
  emit(*sink, 3, {{"loss", 3.0}});
  EXPECT_EQ(read_metrics(folder / kMetricsFile).at("loss").steps, (Steps{1, 3}));
}

TEST(MetricsSinks, AreATableThatAProgramCanExtend) {
  const TemporaryFolder folder;
  auto table = builtin_metrics_sinks();
  const size_t builtin = table.size();
  EXPECT_EQ(builtin, 2u);
  for (const auto& info : table) EXPECT_FALSE(info.doc.empty()) << info.name;
  struct Counter : MetricsSink {
    explicit Counter(int& n) : count(n) {}
    void emit(int64_t, double, std::span<const Metric>) override { ++count; }
    int& count;
  };
  int count = 0;
  table.push_back(
      {"counter", "Counts.", [&](const MetricsSinkOptions&) { return std::make_unique<Counter>(count); }});
  const MetricsSinkOptions options{.folder = folder.path()};
  const auto sinks = make_metrics_sinks({"counter", "jsonl", "tensorboard"}, table, options);
  for (const auto& sink : sinks) emit(*sink, 1, {{"loss", 1.0}});
  EXPECT_EQ(count, 1);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{kMetricsFile, "tb"}));
  EXPECT_THROW(make_metrics_sinks({"jsonl", "jsonl"}, table, options), ConfigError);
  try {
    make_metrics_sinks({"jsnl"}, table, options);
    FAIL() << "an unknown sink was made";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("counter"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace conclave::train
