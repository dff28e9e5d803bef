// SPDX-License-Identifier: Apache-2.0
// Laws of auxiliary losses in a whole run, in fp64 and with unequal padding: accumulation does not change the
// objective, and the counting pass of scope global_batch changes nothing but the loss that asked for it.
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/trainer.h"
#include "temporary_folder.h"

namespace {

using namespace conclave;
using namespace conclave::train;

class CountingPassTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream corpus(folder_.path() / "text.jsonl");
    for (int i = 0; i < 50; ++i) {
      corpus << fmt::format(R"({{"text": "document {}{}"}})", i,
                            std::string(static_cast<size_t>(i % 11), 'a' + i % 7))
             << "\n";
    }
    corpus.close();
    setenv("CONCLAVE_CACHE", (folder_.path() / "cache").c_str(), 1);
    std::ofstream config(folder_.path() / "tiny.yaml");
    config << R"(
model:
  hidden_size: 12
  num_hidden_layers: 3
  num_attention_heads: 3
  num_key_value_heads: 3
  moe:
    num_experts: 5
    moe_intermediate_size: 7
    first_k_dense_replace: 1
    router: {type: topk, top_k: 2, jitter_eps: 0.02, noise: {type: learned_gaussian, epsilon: 0.01}}
    aux_losses: [{type: load_balancing, weight: 0.5, scope: global_batch}, {type: load_balancing, weight: 0.3, scope: sequence}]
data:
  seq_length: 21
  packing: none
  train: [{path: )"
           << (folder_.path() / "text.jsonl").string() << R"(}]
training: {train_iters: 3, global_batch_size: 6, micro_batch_size: 6, precision: fp64}
checkpoint: {interval: null}
evaluation: {interval: null}
logging: {interval: 1, metrics: [jsonl]}
)";
  }

  RunConfig read(const std::string& run, std::vector<std::string> overrides = {}) {
    overrides.push_back("run.output_dir=" + (folder_.path() / run).string());
    return read_run_config(folder_.path() / "tiny.yaml", overrides, registry_);
  }

  // The metrics of a whole run, without what depends on the clock.
  std::map<std::string, std::vector<double>> train(const std::string& run,
                                                   std::vector<std::string> overrides = {}) {
    const auto config = read(run, std::move(overrides));
    const RunDirectory directory(
        config.run.folder(), {.resolved_config = "a: 1\n", .environment_json = "{}\n"},
        [](const std::string&) { return std::vector<std::string>{}; }, false);
    Trainer(config, registry_, directory, {}).run();
    std::map<std::string, std::vector<double>> values;
    for (const auto& [name, series] : read_metrics(folder_.path() / run / kMetricsFile)) {
      if (name.rfind("perf/", 0) != 0) values[name] = series.values;
    }
    return values;
  }

  std::string file(const std::string& path) { return read_file(folder_.path() / path); }

  TemporaryFolder folder_;
  moe::Registry registry_ = moe::builtin();
};

TEST_F(CountingPassTest,
       accumulation_changes_neither_gradient_nor_losses_of_scope_global_batch_and_sequence) {
  const auto whole = train("whole");
  for (const char* size : {"1", "2", "3"}) {
    const auto parts = train(std::string("parts") + size, {std::string("training.micro_batch_size=") + size});
    for (const char* name : {"train/grad_norm", "train/loss", "moe/load_balancing_global_batch",
                             "moe/load_balancing_sequence"}) {
      for (size_t i = 0; i < whole.at(name).size(); ++i) {
        EXPECT_NEAR(parts.at(name)[i], whole.at(name)[i], 1e-9 * std::abs(whole.at(name)[i])) << size << name;
      }
    }
  }
}

TEST_F(CountingPassTest, scope_micro_batch_breaks_that_law_so_it_can_fail) {
  const std::vector<std::string> scope = {"model.moe.aux_losses=[{type: load_balancing, weight: 0.5}]"};
  auto accumulated = scope;
  accumulated.push_back("training.micro_batch_size=2");
  const auto whole = train("whole", scope), parts = train("parts", accumulated);
  EXPECT_GT(std::abs(whole.at("train/grad_norm")[0] - parts.at("train/grad_norm")[0]), 1e-6);
}

TEST_F(CountingPassTest, the_pass_leaves_random_numbers_data_position_and_state_alone) {
  const std::vector<std::string> common = {
      "training.micro_batch_size=2", "model.moe.router.capacity={factor: 0.8, order: random}",
      "model.moe.allow_noncausal=true", "model.moe.balance_update={type: loss_free, rate: 0.01}"};
  const auto with = [&](const char* losses) {
    auto all = common;
    all.push_back(std::string("model.moe.aux_losses=") + losses);
    return all;
  };
  auto counted = train("counted", with("[{type: load_balancing, weight: 0.0, scope: global_batch}]"));
  const auto plain = train("plain", with("[]"));
  EXPECT_GT(counted.at("moe/load_balancing_global_batch")[0], 0.5);
  counted.erase("moe/load_balancing_global_batch");
  EXPECT_EQ(counted, plain);
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
    const std::string path = fmt::format("checkpoints/step-00000003/{}", name);
    EXPECT_EQ(file("counted/" + path), file("plain/" + path)) << name;
  }
}

TEST_F(CountingPassTest, losses_that_cannot_be_honoured_are_refused_before_anything_starts) {
  const auto refused = [&](std::vector<std::string> overrides, const std::string& words) {
    try {
      read("x", std::move(overrides));
      ADD_FAILURE() << "accepted: " << words;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  const std::string losses = "model.moe.aux_losses=", load = losses + "[{type: load}]";
  EXPECT_NO_THROW(read("x", {load}));
  refused({load, "model.moe.router.noise={type: none}"}, "reads 'threshold' of the router");
  refused({load, "model.moe.balance_update={type: loss_free}"}, "reads 'threshold' of the router");
  refused({losses + "[{type: load_balancing}]", "model.moe.router={type: dselect_k}"}, "reads 'pairs'");
  refused({losses + "[{type: z_loss}, {type: z_loss}]"}, "stands twice");
  refused({"model.moe.router.top_k=7"}, "there are 5");
  refused({"model.moe.router.group_limited={num_groups: 2, topk_groups: 1}"}, "2 equal groups");
  refused({"model.moe.router.capacity={factor: -1}"}, "capacity.factor");
  refused({"model.moe.router.capacity={factor: null, min: 3}"}, "no effect here");
  refused({"model.moe.router.second_expert_policy={train: random}", "model.moe.router.top_k=3"},
          "no effect here");
  refused({"model.moe.router.noise={type: none, std: 2.0}"}, "no effect here");
  refused({"model.moe.router.dtype=bf16"}, "fp32");
}

TEST_F(CountingPassTest, a_buffer_without_a_place_stops_the_run_and_names_the_tokens) {
  try {
    train("x", {"model.moe.router.capacity={factor: 0.01, min: 0, rounding: floor}"});
    FAIL() << "no expert had a place, but nothing was said";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("no slot: T = "), std::string::npos) << error.what();
  }
}

}  // namespace
