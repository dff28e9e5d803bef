// SPDX-License-Identifier: Apache-2.0
// training.on_nonfinite: what a NaN costs.
#include <ATen/ops/equal.h>
#include <c10/core/GradMode.h>

#include "train/small_run.h"

namespace conclave::train {
namespace {

class NonFinite : public SmallRun {
 protected:
  // Poisons one value of a parameter for step 4 only, and checks that step 4 leaves the rest as it was.
  TrainerHooks poison_step_4(const std::string& name) {
    TrainerHooks hooks;
    hooks.on_step = [this, name](const StepReport& report) {
      const c10::NoGradGuard no_grad;
      if (report.step == 3) {
        for (const auto& item : running_->model().named_parameters())
          before_[item.key()] = item.value().clone();
        for (const auto& item : running_->model().named_buffers()) before_[item.key()] = item.value().clone();
        parameter(name).view({-1})[0] = NAN;
      }
      if (report.step != 4) return;
      EXPECT_TRUE(report.skipped);
      parameter(name).copy_(before_.at(name));
      for (const auto& item : running_->model().named_parameters())
        EXPECT_TRUE(at::equal(item.value(), before_.at(item.key()))) << item.key();
      for (const auto& item : running_->model().named_buffers())
        EXPECT_TRUE(at::equal(item.value(), before_.at(item.key()))) << item.key();
    };
    return hooks;
  }
  std::map<std::string, at::Tensor> before_;
};

TEST_F(NonFinite, a_skipped_step_is_counted_and_changes_neither_weights_nor_moments_nor_biases) {
  const auto config =
      read("run", {"training.on_nonfinite=skip", "checkpoint.interval=1", "checkpoint.keep_latest_k=null"});
  EXPECT_EQ(train(config, poison_step_4("lm_head")).step, 6);
  EXPECT_EQ(bytes(checkpoint("run", 3) / "optimizer.safetensors"),
            bytes(checkpoint("run", 4) / "optimizer.safetensors"));
  const std::string state = bytes(checkpoint("run", 6) / "state.json");
  EXPECT_TRUE(has(state, "\"optimizer_steps\": 5, \"skipped_steps\": 1")) << state;
  const auto series = metrics("run");
  EXPECT_EQ(series.at("train/skipped_steps"), (std::vector<double>{0, 0, 0, 1, 1, 1}));
  EXPECT_TRUE(std::isnan(series.at("train/loss")[3]));
  train(read("clean"));
  EXPECT_EQ(series.at("train/tokens"), metrics("clean").at("train/tokens")) << "its data are not seen again";
  EXPECT_TRUE(has(log_, "step 4: loss or gradient is not finite; the step is skipped")) << log_;
}

TEST_F(NonFinite, a_value_that_the_router_refuses_costs_the_same_step_and_the_same_data) {
  train(read("loss", {"training.on_nonfinite=skip"}), poison_step_4("lm_head"));
  train(read("router", {"training.on_nonfinite=skip"}), poison_step_4("layers_0.input_layernorm.weight"));
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"})
    EXPECT_EQ(bytes(checkpoint("loss", 6) / file), bytes(checkpoint("router", 6) / file)) << file;
}

TEST_F(NonFinite, by_default_the_run_stops_names_the_step_and_keeps_its_last_checkpoint) {
  for (const char* name : {"lm_head", "layers_0.input_layernorm.weight"}) {
    try {
      train(read(name, {"checkpoint.interval=2"}), poison_step_4(name));
      FAIL() << "the run went on";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kDiverged);
      if (std::string(name) == "lm_head") {
        EXPECT_TRUE(has(error.what(), "step 4: the loss is nan")) << error.what();
        EXPECT_TRUE(has(error.what(), "training.on_nonfinite: skip. The last checkpoint is step 2"))
            << error.what();
      }
    }
    EXPECT_EQ(store(name).list(), std::vector<int64_t>{2});
    store(name).open(2).verify();
  }
}

}  // namespace
}  // namespace conclave::train
