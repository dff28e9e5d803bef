// SPDX-License-Identifier: Apache-2.0
// The program with standard streams that are closed, full, or pipes that nobody reads.
#include <sys/wait.h>
#include <unistd.h>
#include <cstdlib>
#include <fstream>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/core/files.h"
#include "train/temporary_folder.h"

namespace {

using conclave::train::TemporaryFolder;

class StreamsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* program = std::getenv("CONCLAVE_BIN");
    ASSERT_TRUE(program && access(program, X_OK) == 0) << "set CONCLAVE_BIN to the program, as ctest does";
    setenv("CONCLAVE_CACHE", (folder_ / "cache").c_str(), 1);
    std::ofstream(folder_ / "text.jsonl") << R"({"text": "one two three four five six seven eight nine"})"
                                          << "\n"
                                          << R"({"text": "ten eleven twelve thirteen fourteen fifteen"})"
                                          << "\n";
    std::ofstream(folder_ / "tiny.yaml") << fmt::format(R"(
run: {{output_dir: {0}/run}}
model: {{hidden_size: 12, num_hidden_layers: 1, num_attention_heads: 3, num_key_value_heads: 3, intermediate_size: 10}}
data: {{seq_length: 11, valid: {{fraction: 0}}, train: [{{path: {0}/text.jsonl}}]}}
training: {{train_iters: 40, global_batch_size: 2, micro_batch_size: 2}}
logging: {{interval: 1, metrics: [jsonl]}}
)",
                                                        folder_.path().string());
  }
  // Exit code of `conclave ARGUMENTS` in a shell.
  int shell(const std::string& arguments) {
    const std::string command =
        fmt::format("cd '{}' && \"$CONCLAVE_BIN\" {}", folder_.path().string(), arguments);
    return WEXITSTATUS(std::system(command.c_str()));
  }
  std::string file(const std::string& name) { return conclave::read_file(folder_ / name); }

  TemporaryFolder folder_;
};

TEST_F(StreamsTest, AnAnswerThatDoesNotArriveIsAnError) {
  EXPECT_EQ(shell("version > out"), 0);
  EXPECT_EQ(shell("version > /dev/full 2> err"), 1);
  EXPECT_NE(file("err").find("not written whole to standard output"), std::string::npos) << file("err");
  EXPECT_EQ(shell("version >&- 2> err"), 1);
  EXPECT_NE(file("err").find("not written whole to standard output"), std::string::npos) << file("err");
}

TEST_F(StreamsTest, TrainingGoesOnWhenNobodyListens) {
  EXPECT_EQ(shell("train tiny.yaml 2>&- > out"), 0);
  EXPECT_EQ(file("run/metrics.jsonl").find("step 1/"), std::string::npos) << "status went into another file";
  std::filesystem::remove_all(folder_ / "run");
  // `true` ends at once, so the first lines of the status already find the pipe broken.
  EXPECT_EQ(shell("train tiny.yaml 2>&1 > out | true; grep -c '\"step\":40,' run/metrics.jsonl > count"), 0);
}

TEST_F(StreamsTest, PipedStatusIsPlainLines) {
  EXPECT_EQ(shell("train tiny.yaml > out 2> err"), 0);
  const auto text = file("err");
  EXPECT_NE(text.find("\nstep 40/40 | loss "), std::string::npos) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find('\033'), std::string::npos);
}

TEST_F(StreamsTest, ReportIsWrittenBesideTheRunAndItsPathPrinted) {
  ASSERT_EQ(shell("train tiny.yaml > out 2> err"), 0);
  EXPECT_EQ(shell("report run > out"), 0);
  EXPECT_EQ(file("out"), (folder_ / "run/report.html").string() + "\n");
  EXPECT_EQ(file("run/report.html").rfind("<!DOCTYPE html>", 0), 0u);
  EXPECT_EQ(shell("report run run --output both.html > out"), 0);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "both.html"));
  EXPECT_EQ(shell("report run --output absent/x.html 2> err"), 2);
  EXPECT_NE(file("err").find("there is no folder"), std::string::npos);
  EXPECT_EQ(shell("report nowhere 2> err"), 2);
  EXPECT_NE(file("err").find("there is no run folder"), std::string::npos);
  EXPECT_EQ(shell("report 2> err"), 2);
}

}  // namespace
