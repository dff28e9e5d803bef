// SPDX-License-Identifier: Apache-2.0
// Laws of a whole run, on a small text corpus and in fp64.
#include "conclave/train/trainer.h"

#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/config/load.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "temporary_folder.h"

namespace {

using namespace conclave;
using namespace conclave::train;

class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream corpus(folder_.path() / "text.jsonl");
    for (int i = 0; i < 40; ++i) {
      corpus << fmt::format(R"({{"text": "document {} says {} times that {} comes after {}"}})", i, i % 7,
                            i + 1, i)
             << "\n";
    }
    corpus.close();
    setenv("CONCLAVE_CACHE", (folder_.path() / "cache").c_str(), 1);
    std::ofstream config(folder_.path() / "tiny.yaml");
    config << R"(
model:
  hidden_size: 12
  num_hidden_layers: 2
  num_attention_heads: 3
  num_key_value_heads: 3
  moe:
    num_experts: 5
    moe_intermediate_size: 7
    router: {type: topk, top_k: 2, jitter_eps: 0.01}
    balance_update: {type: loss_free, rate: 0.01}
    aux_losses: [{type: load_balancing, weight: 0.02, scope: sequence}, {type: z_loss, weight: 0.001}]
data:
  seq_length: 21
  train: [{path: )"
           << (folder_.path() / "text.jsonl").string() << R"(}]
training: {train_iters: 9, global_batch_size: 6, micro_batch_size: 6, precision: fp64}
checkpoint: {interval: 4}
evaluation: {interval: 4, sample_tokens: 63}
logging: {interval: 1, metrics: [jsonl]}
)";
  }

  RunConfig read(const std::string& run, std::vector<std::string> overrides = {}) {
    overrides.push_back("run.output_dir=" + (folder_.path() / run).string());
    return read_run_config(folder_.path() / "tiny.yaml", overrides, registry_);
  }

  // Trains until the end, or until `stop_after` steps as if a signal had come.
  TrainingResult train(const RunConfig& config, int64_t stop_after = -1) {
    const RunDirectory directory(
        config.run.folder(), {.resolved_config = "a: 1\n", .environment_json = "{}\n"},
        [](const std::string&) { return std::vector<std::string>{}; }, false);
    TrainerHooks hooks;
    int64_t steps = 0;
    hooks.on_step = [&](const StepReport&) { ++steps; };
    hooks.stop_requested = [&]() -> std::optional<int> {
      return steps == stop_after ? std::optional(15) : std::nullopt;
    };
    return Trainer(config, registry_, directory, hooks).run();
  }

  // The lines of metrics.jsonl without what depends on the clock.
  std::map<std::string, std::vector<double>> metrics(const std::string& run) {
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

TEST_F(TrainerTest, loss_falls_and_two_runs_are_bitwise_equal) {
  train(read("a"));
  train(read("b"));
  const auto a = metrics("a");
  EXPECT_LT(a.at("train/loss").back(), a.at("train/loss").front());
  EXPECT_EQ(a, metrics("b"));
  EXPECT_EQ(file("a/checkpoints/step-00000009/model.safetensors"),
            file("b/checkpoints/step-00000009/model.safetensors"));
}

TEST_F(TrainerTest, a_resumed_run_equals_the_uninterrupted_one_bit_for_bit) {
  train(read("whole"));
  EXPECT_EQ(train(read("parts"), 2).stopped_by, 15);
  EXPECT_EQ(train(read("parts"), 5).step, 7);
  EXPECT_EQ(train(read("parts")).step, 9);
  EXPECT_EQ(metrics("whole"), metrics("parts"));
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
    EXPECT_EQ(file(fmt::format("whole/checkpoints/step-00000009/{}", name)),
              file(fmt::format("parts/checkpoints/step-00000009/{}", name)));
  }
}

TEST_F(TrainerTest, accumulation_gives_the_objective_of_the_whole_batch) {
  train(read("whole"));
  const auto whole = metrics("whole");
  for (const char* size : {"1", "2", "3"}) {
    const std::string run = std::string("parts") + size;
    train(read(run, {std::string("training.micro_batch_size=") + size}));
    const auto parts = metrics(run);
    for (const char* name : {"train/loss", "train/grad_norm", "final/loss"}) {
      for (size_t i = 0; i < whole.at(name).size(); ++i) {
        EXPECT_NEAR(parts.at(name)[i], whole.at(name)[i], 1e-9 * std::abs(whole.at(name)[i]))
            << name << " " << i;
      }
    }
  }
}

TEST_F(TrainerTest, a_micro_batch_scope_is_the_mean_over_micro_batches_so_the_law_above_can_fail) {
  train(read("whole", {"model.moe.aux_losses.0.scope=micro_batch"}));
  train(read("parts", {"model.moe.aux_losses.0.scope=micro_batch", "training.micro_batch_size=2"}));
  EXPECT_GT(std::abs(metrics("whole").at("train/grad_norm")[0] - metrics("parts").at("train/grad_norm")[0]),
            1e-7);
}

TEST_F(TrainerTest, evaluation_leaves_the_training_state_alone) {
  train(read("often", {"evaluation.interval=1"}));
  train(read("never", {"evaluation.interval=null"}));
  EXPECT_EQ(file("often/checkpoints/step-00000009/model.safetensors"),
            file("never/checkpoints/step-00000009/model.safetensors"));
}

TEST_F(TrainerTest, stopping_early_at_an_evaluated_step_evaluates_once) {
  const auto result = train(read("early", {"training.exit_after=4"}));
  EXPECT_EQ(result.step, 4);
  EXPECT_EQ(result.validation.loss, metrics("early").at("valid/loss").back());
  EXPECT_EQ(metrics("early").at("valid/loss").size(), 1u);
}

TEST_F(TrainerTest, the_same_command_after_the_last_evaluation_gives_every_number_once) {
  const auto config = read("early", {"training.exit_after=4"});
  train(config);
  const auto before = metrics("early");
  EXPECT_EQ(train(config).step, 4);  // also what a kill before the status file leaves behind
  EXPECT_EQ(metrics("early"), before);
}

TEST_F(TrainerTest, a_checkpoint_of_another_shape_is_refused_with_the_tensors_name) {
  train(read("run"), 4);
  try {
    train(read("run", {"model.hidden_size=18"}));
    FAIL() << "the checkpoint of another model was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("tensor 'embed_tokens'"), std::string::npos) << error.what();
  }
}

TEST_F(TrainerTest, mistakes_over_several_sections_are_found_before_anything_starts) {
  EXPECT_THROW(read("x", {"model.moe.router.top_k=6"}), ConfigError);
  EXPECT_THROW(read("x", {"training.micro_batch_size=4"}), ConfigError);
  EXPECT_THROW(read("x", {"model.moe.router={type: dselect_k}", "model.moe.aux_losses=[]"}), ConfigError);
  EXPECT_THROW(read("x", {"model.moe.router.capacity={factor: -1}"}), ConfigError);
  EXPECT_THROW(read("x", {"model.moe.router.capacity={min: 3}"}), ConfigError);
  EXPECT_THROW(read("x", {"model.moe.router.capacity={factor: 1.0, order: prob}"}), ConfigError);
  EXPECT_NO_THROW(
      read("x", {"model.moe.router.capacity={factor: 1.0, order: prob}", "model.moe.allow_noncausal=true"}));
}

TEST_F(TrainerTest, the_dump_of_a_config_is_a_fixed_point) {
  const auto config = read("x");
  const auto text = config::emit_yaml(dump_run_config(config, registry_));
  std::ofstream(folder_.path() / "dump.yaml") << text;
  EXPECT_EQ(config::emit_yaml(
                dump_run_config(read_run_config(folder_.path() / "dump.yaml", {}, registry_), registry_)),
            text);
}

}  // namespace
