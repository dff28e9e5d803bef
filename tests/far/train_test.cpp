// SPDX-License-Identifier: Apache-2.0
// Runs whose model is on a device.
#include <gtest/gtest.h>

#include "conclave/data/evaluation.h"
#include "conclave/model/generator.h"
#include "conclave/train/load_model.h"
#include "far_device.h"
#include "far_graphs.h"
#include "far_kernels.h"
#include "train/small_run.h"

namespace conclave::train {
namespace {

class FarRun : public SmallRun {
 protected:
  TrainingResult train_far(const RunConfig& config, TrainerHooks hooks = {}) {
    const RunDirectory directory = open(config);
    hooks.log = Log([this](LogLevel, const std::string& message) { log_ += message + "\n"; });
    Trainer trainer(config, registry_, directory, hooks, comm::single_rank(), far::kDevice);
    running_ = &trainer;
    return trainer.run();
  }
  // Waits of the last of four training steps.
  int64_t waits_of_a_step(const std::string& run, const std::vector<std::string>& overrides) {
    std::vector<int64_t> waits;
    TrainerHooks hooks;
    hooks.on_step = [&](const StepReport&) { waits.push_back(far::counts().waits); };
    auto all = overrides;
    all.insert(all.end(), {"training.train_iters=4", "training.precision=fp32", "model.hidden_size=12",
                           "model.moe.moe_intermediate_size=8", "checkpoint.interval=null"});
    train_far(read(run, all), hooks);
    return waits.at(3) - waits.at(2);
  }
  // small.yaml as layers can be recorded.
  const std::vector<std::string> small_bf16_ = {
      "device=cuda",          "model.moe.router.jitter_eps=0", "training.precision=bf16",
      "model.hidden_size=24", "model.num_key_value_heads=1",   "model.moe.moe_intermediate_size=16"};
};

TEST_F(FarRun, trains_as_on_the_host) {
  for (const bool emulated : {false, true}) {
    SCOPED_TRACE(emulated ? "CUDA kernels" : "the host's");
    emulated ? far::install_emulated_kernels() : far::install_host_kernels();
    const std::string name = emulated ? "far_cuda" : "far_host";
    train(read("host" + name));
    train_far(read(name));
    expect_near("host" + name, name,
                {"train/loss", "train/grad_norm", "final/loss", "moe/load_balancing_sequence", "moe/z_loss",
                 "moe/bias_norm", "moe/drop_rate"});
  }
}

// bf16 through all that a GPU has of its own: products in groups, attention over documents.
TEST_F(FarRun, trains_in_bf16_as_on_the_host_up_to_rounding) {
  far::install_emulated_kernels();
  const std::vector<std::string> bf16 = {"training.precision=bf16", "model.hidden_size=24",
                                         "model.num_key_value_heads=1", "model.moe.moe_intermediate_size=16"};
  train(read("host_bf16", bf16));
  train_far(read("far_bf16", bf16));
  const auto host = metrics("host_bf16"), there = metrics("far_bf16");
  for (const char* name : {"train/loss", "final/loss"}) {
    for (size_t i = 0; i < host.at(name).size(); ++i)
      EXPECT_NEAR(there.at(name).at(i), host.at(name)[i], 5e-3 * host.at(name)[i]) << name << " " << i;
  }
}

// Recorded layers, over micro-batches, beside auxiliary losses and a selection bias that moves.
TEST_F(FarRun, recorded_layers_train_like_those_that_run) {
  far::install_emulated_kernels();
  auto recorded = small_bf16_;
  recorded.push_back("model.moe.cuda_graph=true");
  train_far(read("plain", small_bf16_));
  const auto config = read("recorded", recorded);
  const auto before = far::num_replays();
  train_far(config);
  int64_t layers = 0;
  for (int64_t layer = 0; layer < config.model.num_hidden_layers; ++layer)
    layers += config.model.is_moe_layer(layer) ? 1 : 0;
  EXPECT_EQ(far::num_replays() - before, 2 * layers * config.num_steps() * config.training.global_batch_size /
                                             config.training.micro_batch_size);
  expect_near("plain", "recorded",
              {"train/loss", "train/grad_norm", "final/loss", "moe/load_balancing_sequence", "moe/z_loss",
               "moe/bias_norm", "moe/drop_rate"});
}

// Started on one, continued on the other: checkpoints know no device.
TEST_F(FarRun, a_checkpoint_continues_on_another_device) {
  far::install_host_kernels();
  train(read("whole"));
  train_and_stop(read("there"), 3);
  train_far(read("there"));
  TrainerHooks hooks;
  int64_t done = 0;
  hooks.on_step = [&](const StepReport&) { ++done; };
  hooks.stop_requested = [&] { return done == 3 ? std::optional(15) : std::nullopt; };
  train_far(read("back"), hooks);
  train(read("back"));
  for (const char* run : {"there", "back"})
    expect_near("whole", run, {"train/loss", "train/grad_norm", "final/loss"});
}

// What the host asks of the device is asked once a step, not once a layer or micro-batch.
TEST_F(FarRun, waits_of_a_step_do_not_grow_with_layers_or_micro_batches) {
  far::install_host_kernels();
  const auto few = waits_of_a_step("few", {"model.num_hidden_layers=2", "training.micro_batch_size=6"});
  EXPECT_EQ(waits_of_a_step("micro_batches", {"model.num_hidden_layers=2", "training.micro_batch_size=1"}),
            few);
  // Two reads of counts and one of a bias, for the metrics, are all that a layer adds; and of its gradients
  // none.
  EXPECT_EQ(waits_of_a_step("layers", {"model.num_hidden_layers=4", "training.micro_batch_size=6"}),
            few + 2 * 3);
  EXPECT_LE(few, 16);
}

TEST_F(FarRun, logits_that_are_not_finite_stop_the_run_with_the_layers_name) {
  far::install_host_kernels();
  for (const int64_t step : {2, 6}) {  // before the next step, and before the last evaluation
    TrainerHooks hooks;
    hooks.on_step = [&](const StepReport& report) {
      if (report.step != step) return;
      const c10::NoGradGuard no_grad;
      parameter("layers_1.moe.router.weight").fill_(NAN);
    };
    const auto text = failure([&] { train_far(read(fmt::format("broken{}", step)), hooks); });
    EXPECT_TRUE(has(text, "router of layer 1")) << text;
    EXPECT_TRUE(has(text, "logits are NaN or infinite")) << text;
  }
}

TEST_F(FarRun, running_out_of_memory_says_who_holds_what_and_what_helps) {
  far::install_host_kernels();
  TrainerHooks hooks;
  hooks.on_step = [&](const StepReport& report) {
    if (report.step == 2) far::limit_memory(100 << 10);
  };
  const auto text_of = [&](const std::string& run, const std::vector<std::string>& overrides) {
    const auto text = failure([&] { train_far(read(run, overrides), hooks); });
    far::limit_memory(SIZE_MAX);
    return text;
  };
  const auto text = text_of("large", {});
  for (const char* part : {"out of memory on hpu:0: parameters hold ", "gradients ", "moments ",
                           "training.micro_batch_size=1 (is 3), training.recompute=full, "
                           "parallelism.expert_parallel_size=2 on as many ranks",
                           "the device has no "})
    EXPECT_TRUE(has(text, part)) << text;
  EXPECT_TRUE(has(bytes(folder_ / "large" / "STATUS.json"), "out of memory"));
  auto recorded = small_bf16_;
  recorded.push_back("model.moe.cuda_graph=true");
  const auto of_recorded = text_of("recorded_large", recorded);
  EXPECT_TRUE(has(of_recorded, "(is 3), model.moe.cuda_graph=false, data.seq_length=")) << of_recorded;
}

}  // namespace
}  // namespace conclave::train
