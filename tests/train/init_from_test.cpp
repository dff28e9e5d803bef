// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/init_from.h"

#include "train/small_run.h"

namespace conclave::train {
namespace {

class InitFrom : public SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    train(read("source"));
    source_ = checkpoint("source", 6);
  }
  std::string from(const std::filesystem::path& path) { return "checkpoint.init_from=" + path.string(); }
  std::string refusal(const std::vector<std::string>& overrides) {
    std::filesystem::remove_all(folder_ / "refused");
    return failure([&] { train_and_stop(read("refused", overrides), 0); });
  }
  std::filesystem::path source_;
};

TEST_F(InitFrom, a_checkpoint_or_its_weights_file_gives_the_same_model_and_a_fresh_run_around_it) {
  for (const auto& path : {source_, source_ / "model.safetensors"}) {
    std::filesystem::remove_all(folder_ / "run");
    EXPECT_EQ(train_and_stop(read("run", {from(path)}), 0).step, 0);
    EXPECT_EQ(bytes(checkpoint("run", 0) / "model.safetensors"), bytes(source_ / "model.safetensors"));
    const std::string state = bytes(checkpoint("run", 0) / "state.json");
    EXPECT_TRUE(has(state, "\"optimizer_steps\": 0")) << state;
    EXPECT_TRUE(has(state, "\"consumed_samples\": 0")) << state;
    const SafetensorsFile moments(checkpoint("run", 0) / "optimizer.safetensors");
    for (const auto& view : moments.tensors())
      for (const auto byte : view.bytes) ASSERT_EQ(byte, std::byte{0}) << view.name;
  }
}

TEST_F(InitFrom, weights_of_another_precision_are_converted) {
  train_and_stop(read("single", {"training.precision=fp32"}), 1);
  train_and_stop(read("run", {from(checkpoint("single", 1))}), 0);
  const SafetensorsFile wide(checkpoint("run", 0) / "model.safetensors");
  const SafetensorsFile narrow(checkpoint("single", 1) / "model.safetensors");
  const auto a = wide.at("lm_head").bytes, b = narrow.at("lm_head").bytes;
  const auto* doubles = reinterpret_cast<const double*>(a.data());
  const auto* floats = reinterpret_cast<const float*>(b.data());
  ASSERT_EQ(a.size(), 2 * b.size());
  for (size_t i = 0; i < b.size() / sizeof(float); ++i) ASSERT_EQ(doubles[i], static_cast<double>(floats[i]));
}

TEST_F(InitFrom, a_run_that_continues_does_not_read_it_again) {
  std::filesystem::copy(source_, folder_ / "weights");
  const auto config = read("run", {from(folder_ / "weights")});
  train_and_stop(config, 2);
  std::filesystem::remove_all(folder_ / "weights");
  EXPECT_EQ(train(config).step, 6);
  train(read("whole", {from(source_)}));
  EXPECT_EQ(bytes(checkpoint("whole", 6) / "model.safetensors"),
            bytes(checkpoint("run", 6) / "model.safetensors"));
}

TEST_F(InitFrom, all_mismatches_are_named_at_once) {
  const auto shape = refusal({from(source_), "model.moe.moe_intermediate_size=9"});
  EXPECT_TRUE(has(shape, "does not fit this model:\n")) << shape;
  EXPECT_TRUE(has(shape, "'layers_0.moe.experts.0.gate_proj.weight' is [7, 12], the model needs [9, 12]"))
      << shape;
  EXPECT_TRUE(has(shape, "\n  and 18 more")) << shape;  // 2 layers of 5 experts of 3 matrices, 12 are shown
  const auto missing = refusal({from(source_), "model.num_hidden_layers=3"});
  EXPECT_TRUE(has(missing, "'layers_2.input_layernorm.weight' [12] is missing")) << missing;
  const auto extra = refusal({from(source_), "model.num_hidden_layers=1"});
  EXPECT_TRUE(has(extra, "'layers_1.input_layernorm.weight' [12] belongs to no parameter")) << extra;
}

TEST_F(InitFrom, a_bias_that_the_file_lacks_starts_fresh_and_the_log_says_so) {
  const SafetensorsFile file(source_ / "model.safetensors");
  std::vector<TensorView> weights;
  for (const auto& view : file.tensors())
    if (!has(view.name, "selection_bias")) weights.push_back(view);
  ASSERT_EQ(weights.size() + 2, file.tensors().size());
  write_safetensors(folder_ / "plain.safetensors", weights);
  train_and_stop(read("run", {from(folder_ / "plain.safetensors")}), 0);
  EXPECT_TRUE(has(log_, "it starts as in a new model")) << log_;
}

TEST_F(InitFrom, paths_that_are_no_weights_say_what_to_name) {
  EXPECT_TRUE(has(refusal({from(folder_ / "nowhere")}), "nowhere' does not exist; name a checkpoint folder"));
  const auto run = refusal({from(folder_ / "source")});
  EXPECT_TRUE(has(run, "is no checkpoint (it holds no manifest.json); its newest checkpoint is '")) << run;
  EXPECT_TRUE(has(run, "step-00000006'")) << run;
}

}  // namespace
}  // namespace conclave::train
