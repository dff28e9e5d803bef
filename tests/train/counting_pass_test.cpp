// SPDX-License-Identifier: Apache-2.0
// Laws of auxiliary losses in a whole run, in fp64 and with unequal padding: accumulation does not change the
// objective, and the counting pass of scope global_batch changes nothing but the loss that asked for it.
#include "small_run.h"

namespace {

using namespace conclave;
using namespace conclave::train;

class CountingPassTest : public SmallRun {
 protected:
  CountingPassTest()
      : SmallRun({"model.num_hidden_layers=3", "model.moe.first_k_dense_replace=1",
                  "model.moe.router={type: topk, top_k: 2, jitter_eps: 0.02, noise: {type: learned_gaussian, "
                  "epsilon: 0.01}}",
                  "model.moe.aux_losses=[{type: load_balancing, weight: 0.5, scope: global_batch}, {type: "
                  "load_balancing, weight: 0.3, scope: sequence}]",
                  "~model.moe.balance_update", "data.packing=none", "training.train_iters=3",
                  "training.micro_batch_size=6", "checkpoint.interval=null"}) {}

  std::map<std::string, std::vector<double>> trained(const std::string& run,
                                                     const std::vector<std::string>& overrides = {}) {
    train(read(run, overrides));
    return metrics(run);
  }
};

TEST_F(CountingPassTest,
       accumulation_changes_neither_gradient_nor_losses_of_scope_global_batch_and_sequence) {
  trained("whole");
  for (const std::string size : {"1", "2", "3"}) {
    trained("parts" + size, {"training.micro_batch_size=" + size});
    expect_near(
        "whole", "parts" + size,
        {"train/grad_norm", "train/loss", "moe/load_balancing_global_batch", "moe/load_balancing_sequence"});
  }
}

TEST_F(CountingPassTest, scope_micro_batch_breaks_that_law_so_it_can_fail) {
  const std::vector<std::string> scope = {"model.moe.aux_losses=[{type: load_balancing, weight: 0.5}]"};
  auto accumulated = scope;
  accumulated.push_back("training.micro_batch_size=2");
  const auto whole = trained("whole", scope), parts = trained("parts", accumulated);
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
  auto counted = trained("counted", with("[{type: load_balancing, weight: 0.0, scope: global_batch}]"));
  const auto plain = trained("plain", with("[]"));
  EXPECT_GT(counted.at("moe/load_balancing_global_batch")[0], 0.5);
  counted.erase("moe/load_balancing_global_batch");
  EXPECT_EQ(counted, plain);
  expect_equal_checkpoints("counted", "plain", 3);
}

TEST_F(CountingPassTest, losses_that_cannot_be_honoured_are_refused_before_anything_starts) {
  const auto refused = [&](const std::vector<std::string>& overrides, const std::string& words) {
    const auto message = mistakes(overrides);
    EXPECT_TRUE(has(message, words)) << words << "\n" << message;
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
  const auto message =
      failure([&] { trained("x", {"model.moe.router.capacity={factor: 0.01, min: 0, rounding: floor}"}); });
  EXPECT_TRUE(has(message, "no slot: T = ")) << message;
}

}  // namespace
