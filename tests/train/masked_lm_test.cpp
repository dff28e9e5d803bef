// SPDX-License-Identifier: Apache-2.0
// Masked language modelling through the whole trainer, in fp64.
#include "conclave/model/objective.h"
#include "conclave/train/load_model.h"
#include "small_run.h"

namespace {

using namespace conclave;
using namespace conclave::train;

class MaskedLmTest : public SmallRun {
 protected:
  MaskedLmTest()
      : SmallRun({"model.objective=masked_lm", "~model.moe.balance_update", "training.micro_batch_size=6",
                  "checkpoint={interval: 2, keep_latest_k: null}", "evaluation.interval=2"}) {}
};

TEST_F(MaskedLmTest, metrics_are_named_for_hidden_tokens_and_never_bits_per_byte) {
  const auto result = train(read("run"));
  EXPECT_EQ(result.validation.bits_per_byte, 0);
  const auto all = metrics("run");
  for (const char* name : {"train/masked_loss", "valid/masked_loss", "final/masked_loss"}) {
    EXPECT_TRUE(all.count(name)) << name;
  }
  for (const auto& [name, values] : all) {
    EXPECT_EQ(name.find("bits_per_byte"), std::string::npos) << name;
    EXPECT_FALSE(name.ends_with("/loss")) << name;
  }
}

TEST_F(MaskedLmTest, accumulation_gives_the_objective_of_the_whole_batch) {
  train(read("whole"));
  for (const std::string size :
       {"1", "2", "3"}) {  // with one sequence some micro-batches hide hardly any token
    train(read("parts" + size, {"training.micro_batch_size=" + size}));
    expect_near("whole", "parts" + size, {"train/masked_loss", "train/grad_norm"});
  }
}

TEST_F(MaskedLmTest, dividing_by_a_micro_batchs_own_targets_would_break_the_law_above) {
  const auto config = read("run");
  const auto tokenizer = data::make_tokenizer(config.tokenizer);
  const auto model = make_model(config, *tokenizer, registry_);
  data::BatchStream stream(data::open_dataset(config.data, tokenizer, {}),
                           {.seed = 3, .micro_batch_size = 1});
  double nats = 0, mean_of_means = 0;
  int64_t targets = 0;
  for (int i = 0; i < 6; ++i) {
    data::Batch batch = stream.next();
    model::set_targets(batch, config.model, *tokenizer, {.seed = 3});
    moe::ForwardContext context;
    const double sum = model->loss(batch, context).sum.item<double>();
    nats += sum;
    targets += batch.num_targets;
    mean_of_means += sum / static_cast<double>(std::max<int64_t>(batch.num_targets, 1)) / 6;
  }
  EXPECT_GT(std::abs(mean_of_means - nats / static_cast<double>(targets)), 1e-6);
}

TEST_F(MaskedLmTest, a_step_that_hides_nothing_has_a_loss_of_zero) {
  train(read("rare", {"model.masking.rate=1e-12"}));
  EXPECT_EQ(metrics("rare").at("train/masked_loss"), std::vector<double>(6, 0.0));
}

TEST_F(MaskedLmTest, a_resumed_run_equals_the_uninterrupted_one_bit_for_bit) {
  train(read("whole"));
  EXPECT_EQ(train_and_stop(read("parts"), 3).stopped_by, 15);
  EXPECT_EQ(train(read("parts")).step, 6);
  EXPECT_EQ(metrics("whole"), metrics("parts"));
  expect_equal_checkpoints("whole", "parts", 6);
}

TEST_F(MaskedLmTest, gates_that_look_at_later_tokens_train) {
  for (const char* gate : {"soft", "expert_choice"}) {
    const std::vector<std::string> overrides = {fmt::format("model.moe.router={{type: {}}}", gate),
                                                "model.moe.aux_losses=[]", "data.packing=none",
                                                "training.train_iters=2"};
    EXPECT_EQ(train(read(gate, overrides)).step, 2) << gate;
    const auto losses = metrics(gate).at("train/masked_loss");
    EXPECT_GT(losses[0], 1.0) << gate;  // near log 257 at the start
    auto causal = overrides;
    causal.push_back("model.objective=causal_lm");
    EXPECT_THROW(read("refused", causal), ConfigError) << gate;
  }
}

TEST_F(MaskedLmTest, the_validation_mask_is_the_same_at_every_step_and_for_every_seed) {
  const auto config = read("run");
  const auto tokenizer = data::make_tokenizer(config.tokenizer);
  const auto dataset = data::open_dataset(config.data, tokenizer, {});
  const auto model = make_model(config, *tokenizer, registry_);
  const data::EvaluationSet set(dataset, {.micro_batch_size = 2});
  const auto first = evaluate(*model, set, 1, 0), later = evaluate(*model, set, 2, 77);
  EXPECT_EQ(first.loss, later.loss);
  EXPECT_GT(first.targets, 0);
  EXPECT_LT(first.targets, set.num_tokens() / 3);
  const data::EvaluationSet by_one(dataset, {.micro_batch_size = 1});
  EXPECT_NEAR(evaluate(*model, by_one, 1, 0).loss, first.loss, 1e-9 * first.loss);
}

TEST_F(MaskedLmTest, the_vocabulary_grows_by_the_mask_and_mistakes_are_found) {
  const auto config = read("x");
  EXPECT_EQ(config.model.embedding_rows(257), 258);
  EXPECT_THROW(read("x", {"model.vocab_size=257"}).model.embedding_rows(257), Error);
  EXPECT_THROW(read("x", {"model.objective=causal_lm", "model.masking.rate=0.2"}), ConfigError);
  EXPECT_THROW(read("x", {"model.masking={mask_fraction: 0.9, random_fraction: 0.2}"}), ConfigError);
  EXPECT_THROW(read("x", {"model.masking.rate=0"}), ConfigError);
}

}  // namespace
