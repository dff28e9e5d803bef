// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fstream>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "conclave/core/files.h"
#include "program.h"

namespace conclave::cli_tests {

inline constexpr int kTinySteps = 40;

// A folder with a corpus of a few kilobytes and a configuration that trains on it in about a second. The
// layout of the configuration's lines matters: tests look for its positions.
class TinyRun : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string corpus;
    for (int i = 0; i < 60; ++i) {
      corpus += fmt::format("document {} says {} times that {} comes after {}\n\n", i, i % 7, i + 1, i);
    }
    write("text.txt", corpus);
    write("tiny.yaml", kConfig);
  }

  std::filesystem::path write(const std::string& name, const std::string& content) const {
    const auto path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  std::filesystem::path path(const std::string& name) const { return folder_ / name; }
  std::string text(const std::string& name) const { return read_file(folder_ / name); }

  ProgramOptions here() const {
    return {.folder = folder_.path(), .environment = {{"CONCLAVE_CACHE", path("cache")}}};
  }
  Ended conclave(const std::vector<std::string>& arguments) const { return run_program(arguments, here()); }
  std::vector<std::string> train_arguments(const std::string& run, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"train", "tiny.yaml", "run.output_dir=" + run});
    return more;
  }
  Ended train(const std::string& run, const std::vector<std::string>& more = {}) const {
    return conclave(train_arguments(run, more));
  }

  // Lines of metrics.jsonl without what depends on the clock. Every (step, name) stands once.
  std::vector<std::string> metrics(const std::string& run) const {
    std::vector<std::string> lines;
    std::set<std::pair<int64_t, std::string>> seen;
    std::istringstream file(text(run + "/metrics.jsonl"));
    for (std::string line; std::getline(file, line);) {
      auto object = nlohmann::ordered_json::parse(line);
      const auto step = object.at("step").get<int64_t>();
      object.erase("time");
      for (auto it = object.begin(); it != object.end();) {
        if (it.key() != "step") {
          EXPECT_TRUE(seen.insert({step, it.key()}).second) << step << " " << it.key();
        }
        it = it.key().rfind("perf/", 0) == 0 ? object.erase(it) : std::next(it);
      }
      lines.push_back(object.dump());
    }
    return lines;
  }
  // The newest step in metrics.jsonl, 0 without one.
  int64_t newest_step(const std::string& run) const {
    if (!std::filesystem::exists(path(run + "/metrics.jsonl"))) return 0;
    const std::string all = text(run + "/metrics.jsonl");
    const size_t at = all.rfind("{\"step\":");
    return at == std::string::npos ? 0 : std::atoll(all.c_str() + at + 8);
  }

  static constexpr const char* kConfig = R"(run: {name: tiny}
model:
  hidden_size: 12
  num_hidden_layers: 2
  num_attention_heads: 3
  num_key_value_heads: 3
  moe:
    num_experts: 5
    moe_intermediate_size: 7
    router: {type: topk, top_k: 2, jitter_eps: 0.01}
    aux_losses: [{type: load_balancing, weight: 0.02, scope: sequence}, {type: z_loss, weight: 0.001}]
    balance_update: {type: loss_free, rate: 0.01}
data:
  seq_length: 21
  train: [{path: text.txt, document_separator: "\n\n"}]
  valid: {fraction: 0.1}
training: {train_iters: 40, global_batch_size: 6, micro_batch_size: 3}
optimizer: {lr: 3.0e-03}
checkpoint: {interval: 7, keep_latest_k: 3}
evaluation: {interval: 10, sample_tokens: 63}
logging: {interval: 1, metrics: [jsonl, tensorboard]}
)";

  train::TemporaryFolder folder_;
};

// Every part stands in the text, in this order.
inline void expect_words(const std::string& text, const std::vector<std::string>& parts) {
  size_t from = 0;
  for (const auto& part : parts) {
    const size_t at = text.find(part, from);
    EXPECT_NE(at, std::string::npos) << "'" << part << "' is not where it should be in:\n" << text;
    if (at != std::string::npos) from = at + part.size();
  }
}

}  // namespace conclave::cli_tests
