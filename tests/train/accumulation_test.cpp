// SPDX-License-Identifier: Apache-2.0
// The objective depends on the batch, not on how it is cut into micro-batches, nor on who looks on.
#include "train/small_run.h"

namespace conclave::train {
namespace {

class Accumulation : public SmallRun {
 protected:
  void expect_equal_curves(const std::string& run, const std::string& other) {
    const auto whole = metrics(run), parts = metrics(other);
    for (const char* name :
         {"train/loss", "train/grad_norm", "moe/load_balancing_sequence", "moe/z_loss", "final/loss"}) {
      ASSERT_EQ(whole.at(name).size(), parts.at(name).size());
      for (size_t i = 0; i < whole.at(name).size(); ++i) {
        const double want = whole.at(name)[i];
        EXPECT_NEAR(parts.at(name)[i], want, 1e-9 * std::abs(want)) << other << " " << name << " " << i;
      }
    }
  }
};

TEST_F(Accumulation, micro_batches_with_unequal_numbers_of_targets_give_the_step_of_the_whole_batch) {
  for (const std::string packing : {"concat", "none"}) {
    const auto run = [&](int size) {
      const std::string name = packing + std::to_string(size);
      train(read(name, {"data.packing=" + packing, "data.seq_length=50", "training.global_batch_size=4",
                        fmt::format("training.micro_batch_size={}", size)}));
      return name;
    };
    const auto whole = run(4);
    expect_equal_curves(whole, run(2));
    expect_equal_curves(whole, run(1));
  }
  // The rows of `none` are padded to different lengths, so a mean of means would be another number.
  EXPECT_LT(metrics("none4").at("train/tokens")[0], 4 * 50);
}

TEST_F(Accumulation, evaluations_at_any_time_leave_the_run_bit_for_bit_as_it_was) {
  train(read("often", {"evaluation.interval=1", "evaluation.at_start=true", "~evaluation.sample_tokens",
                       "evaluation.iters=2"}));
  train(read("never"));
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"})
    EXPECT_EQ(bytes(checkpoint("often", 6) / file), bytes(checkpoint("never", 6) / file)) << file;
  EXPECT_EQ(metrics("often").at("valid/loss").size(), 6u) << "at the start and after each step but the last";
  EXPECT_EQ(metrics("often").at("train/loss"), metrics("never").at("train/loss"));
}

TEST_F(Accumulation, epochs_are_passes_over_all_training_sequences) {
  const auto config = read("run", {"~training.train_iters", "training.train_epochs=1.5", "data.packing=none",
                                   "data.seq_length=100", "data.valid.fraction=0.1"});
  EXPECT_THROW(config.num_steps(), Error) << "not known before the data are open";
  const auto result = train(config);
  // 40 documents of at most 100 tokens, about a tenth held out.
  EXPECT_GE(result.step, static_cast<int64_t>(std::ceil(1.5 * 30 / 6)));
  EXPECT_LE(result.step, static_cast<int64_t>(std::ceil(1.5 * 39 / 6)));
}

}  // namespace
}  // namespace conclave::train
