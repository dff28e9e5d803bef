// SPDX-License-Identifier: Apache-2.0
// The loss curve of every shipped configuration: the real program, 20 steps in double on the small corpus
// beside this file. The model is the configuration's own; rows are shorter and fewer, so that it takes
// seconds.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "conclave/core/files.h"

namespace conclave::golden {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance =
    1e-9;  // relative; the files have 12 digits, so that no machine's last bits are in them
constexpr int kSteps = 20;
const fs::path kRoot = CONCLAVE_SOURCE_DIR;
const fs::path kFolder = kRoot / "tests/golden";

std::vector<std::string> configurations() {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(kRoot / "configs"))
    if (item.path().extension() == ".yaml") names.push_back(item.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

// Loss by step; the loss on held-out text after the last step stands under kSteps + 1.
using Curve = std::map<int, double>;

Curve train(const std::string& name) {
  const train::TemporaryFolder folder;
  const std::string run = folder / "run";
  const auto ended = cli_tests::run_program(
      {"train", kRoot / "configs" / (name + ".yaml"), "run.output_dir=" + run, "training.precision=fp64",
       fmt::format("training.train_iters={}", kSteps), "training.train_tokens=null",
       "training.max_minutes=null", "parallelism.expert_parallel_size=1", "training.global_batch_size=3",
       "training.micro_batch_size=3", "data.seq_length=37",
       fmt::format("data.train=[{{path: '{}', label_field: label}}]", (kFolder / "text.jsonl").string()),
       "data.valid={fraction: 0.06}", "evaluation.interval=null", "checkpoint.interval=null",
       "logging.interval=1", "logging.metrics=[jsonl]"},
      {.environment = {{"CONCLAVE_CACHE", folder / "cache"}}});
  if (ended.exit_code != 0) {
    ADD_FAILURE() << ended.err;
    return {};
  }
  Curve curve;
  std::istringstream lines(read_file(run + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto values = nlohmann::json::parse(line);
    if (values.contains("train/loss")) curve[values.at("step")] = values.at("train/loss");
    if (values.contains("final/loss")) curve[kSteps + 1] = values.at("final/loss");
  }
  return curve;
}

Curve read_curve(const fs::path& file) {
  Curve curve;
  std::istringstream lines(read_file(file));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind('#', 0) == 0) continue;
    std::istringstream words(line);
    words.imbue(std::locale::classic());
    int step = 0;
    double loss = 0;
    if (words >> step >> loss) curve[step] = loss;
  }
  return curve;
}

void write_curve(const fs::path& file, const Curve& curve) {
  std::ofstream out(file);
  out << "# loss by step, fp64; after the last step: on held-out text. docs/testing.md says how to write it "
         "anew.\n";
  for (const auto& [step, loss] : curve) out << fmt::format("{} {:.12g}\n", step, loss);
}

// "" if equal within the tolerance.
std::string difference(const Curve& got, const Curve& want) {
  if (got.size() != want.size()) return fmt::format("{} values, not {}", got.size(), want.size());
  for (const auto& [step, loss] : want) {
    const auto found = got.find(step);
    if (found == got.end()) return fmt::format("step {} is missing", step);
    if (!(std::abs(found->second - loss) <= kTolerance * std::abs(loss)))
      return fmt::format("step {}: loss {:.12g}, not {:.12g}", step, found->second, loss);
  }
  return "";
}

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, the_loss_curve_is_the_recorded_one) {
  const fs::path file = kFolder / (GetParam() + ".txt");
  const bool update = std::getenv("CONCLAVE_UPDATE_GOLDEN") != nullptr;
  const std::string remedy =
      "If the change is meant, write the curves anew (CONCLAVE_UPDATE_GOLDEN=1, see docs/testing.md), and "
      "say in the "
      "commit why they moved.";
  if (!update) {
    ASSERT_TRUE(fs::exists(file)) << "configs/" << GetParam() << ".yaml has no tests/golden/" << GetParam()
                                  << ".txt. " << remedy;
  }
  const Curve curve = train(GetParam());
  ASSERT_EQ(curve.size(), kSteps + 1u);
  if (update) {
    write_curve(file, curve);
    GTEST_SKIP() << "written: " << file;
  }
  EXPECT_EQ(difference(curve, read_curve(file)), "") << remedy;
}

INSTANTIATE_TEST_SUITE_P(configs, Golden, testing::ValuesIn(configurations()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

TEST(GoldenFiles, each_belongs_to_a_configuration) {
  for (const auto& item : fs::directory_iterator(kFolder)) {
    if (item.path().extension() != ".txt") continue;
    EXPECT_TRUE(fs::exists(kRoot / "configs" / (item.path().stem().string() + ".yaml")))
        << item.path() << ": no such configuration; remove the file";
  }
}

TEST(GoldenFiles, a_curve_that_differs_in_the_ninth_digit_is_seen) {
  const Curve curve = {{1, 5.5}, {2, 5.25}};
  EXPECT_EQ(difference({{1, 5.5}, {2, 5.25 * (1 + 9e-10)}}, curve), "");
  EXPECT_NE(difference({{1, 5.5}, {2, 5.25 * (1 + 2e-9)}}, curve), "");
  EXPECT_NE(difference({{1, 5.5}, {2, std::nan("")}}, curve), "");
  EXPECT_NE(difference({{1, 5.5}}, curve), "");
}

}  // namespace
}  // namespace conclave::golden
