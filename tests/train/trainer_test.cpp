// SPDX-License-Identifier: Apache-2.0
// Laws of a whole run, on a small text corpus and in fp64.
#include "conclave/train/trainer.h"

#include "conclave/config/load.h"
#include "small_run.h"

namespace {

using namespace conclave;
using namespace conclave::train;

class TrainerTest : public SmallRun {
 protected:
  TrainerTest()
      : SmallRun({"training.train_iters=9", "training.micro_batch_size=6", "evaluation.interval=4"}) {}
};

TEST_F(TrainerTest, loss_falls_and_two_runs_are_bitwise_equal) {
  train(read("a"));
  train(read("b"));
  const auto a = metrics("a");
  EXPECT_LT(a.at("train/loss").back(), a.at("train/loss").front());
  EXPECT_EQ(a, metrics("b"));
  expect_equal_checkpoints("a", "b", 9);
}

TEST_F(TrainerTest, a_resumed_run_equals_the_uninterrupted_one_bit_for_bit) {
  train(read("whole"));
  EXPECT_EQ(train_and_stop(read("parts"), 2).stopped_by, 15);
  EXPECT_EQ(train_and_stop(read("parts"), 5).step, 7);
  EXPECT_EQ(train(read("parts")).step, 9);
  EXPECT_EQ(metrics("whole"), metrics("parts"));
  expect_equal_checkpoints("whole", "parts", 9);
}

TEST_F(TrainerTest, accumulation_gives_the_objective_of_the_whole_batch) {
  train(read("whole"));
  for (const std::string size : {"1", "2", "3"}) {
    train(read("parts" + size, {"training.micro_batch_size=" + size}));
    expect_near("whole", "parts" + size, {"train/loss", "train/grad_norm", "final/loss"});
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
  expect_equal_checkpoints("often", "never", 9);
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
  train_and_stop(read("run"), 4);
  const auto message = failure([&] { train(read("run", {"model.hidden_size=18"})); });
  EXPECT_TRUE(has(message, "tensor 'embed_tokens'")) << message;
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
  write("dump.yaml", text);
  const auto again = read_run_config(folder_ / "dump.yaml", {}, registry_);
  EXPECT_EQ(config::emit_yaml(dump_run_config(again, registry_)), text);
}

}  // namespace
