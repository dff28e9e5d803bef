// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/freeze.h"

#include "train/small_run.h"

namespace conclave::train {
namespace {

TEST(Glob, stars_and_question_marks_match_the_whole_name) {
  for (const char* glob : {"*", "a.b.c", "a.*", "*.c", "a.?.c", "*b*", "a*b*c", "**", "a.b.c*"})
    EXPECT_TRUE(matches_glob(glob, "a.b.c")) << glob;
  for (const char* glob : {"", "a.b", "b.c", "?", "a.??.c", "*d*", "A*", "a.b.c?"})
    EXPECT_FALSE(matches_glob(glob, "a.b.c")) << glob;
  EXPECT_TRUE(matches_glob("*ab*ab", "abaabab"));
  EXPECT_TRUE(matches_glob("", ""));
}

class Freeze : public SmallRun {};

TEST_F(Freeze, frozen_parameters_keep_their_bits_have_no_gradient_and_no_moments_and_the_rest_learns) {
  const auto config = read("run", {"training.freeze=[embed_tokens, 'layers_1.moe.experts.*']"});
  std::map<std::string, at::Tensor> start;
  TrainerHooks hooks;
  hooks.on_step = [&](const StepReport& report) {
    const bool first = report.step == 1;
    for (const auto& item : running_->model().named_parameters()) {
      const bool frozen = item.key() == "embed_tokens" || item.key().rfind("layers_1.moe.experts", 0) == 0;
      EXPECT_EQ(item.value().requires_grad(), !frozen) << item.key();
      EXPECT_FALSE(item.value().grad().defined()) << item.key() << ": gradients live for one step";
      if (first) start[item.key()] = item.value().detach().clone();
      if (!first) {
        EXPECT_EQ(item.value().equal(start.at(item.key())), frozen) << item.key();
      }
    }
  };
  train(config, hooks);
  const SafetensorsFile moments(checkpoint("run", 6) / "optimizer.safetensors");
  const SafetensorsFile weights(checkpoint("run", 6) / "model.safetensors");
  EXPECT_FALSE(moments.contains("embed_tokens.exp_avg"));
  EXPECT_FALSE(moments.contains("layers_1.moe.experts.2.up_proj.weight.exp_avg"));
  EXPECT_TRUE(moments.contains("layers_0.moe.experts.2.up_proj.weight.exp_avg"));
  EXPECT_TRUE(weights.contains("embed_tokens"));
  EXPECT_TRUE(has(log_, "frozen: 3 of ")) << log_;
}

TEST_F(Freeze, a_frozen_run_resumes_bit_for_bit) {
  const std::vector<std::string> freeze = {"training.freeze=['*norm*', lm_head, '*router*']"};
  train(read("whole", freeze));
  train_and_stop(read("parts", freeze), 2);
  train(read("parts", freeze));
  EXPECT_EQ(metrics("whole"), metrics("parts"));
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_EQ(bytes(checkpoint("whole", 6) / file), bytes(checkpoint("parts", 6) / file));
}

TEST_F(Freeze, the_trained_gradients_do_not_depend_on_what_is_frozen) {
  train(read("all", {"training.clip_grad=null", "training.train_iters=1"}));
  train(read("some", {"training.clip_grad=null", "training.train_iters=1",
                      "training.freeze=[lm_head, 'layers_0.moe.experts.*']"}));
  const SafetensorsFile all(checkpoint("all", 1) / "optimizer.safetensors");
  const SafetensorsFile some(checkpoint("some", 1) / "optimizer.safetensors");
  ASSERT_GT(some.tensors().size(), 10u);
  for (const auto& view : some.tensors()) {
    const auto& other = all.at(view.name);
    ASSERT_TRUE(std::equal(view.bytes.begin(), view.bytes.end(), other.bytes.begin(), other.bytes.end()))
        << view.name;
  }
}

TEST_F(Freeze, a_glob_without_a_parameter_is_answered_with_what_there_is) {
  const auto message = failure([&] { train(read("run", {"training.freeze=[lm_head, 'layers.*.mlp']"})); });
  EXPECT_TRUE(
      has(message, "training.freeze: 'layers.*.mlp' matches no parameter; there are:\n  embed_tokens\n"))
      << message;
  EXPECT_TRUE(has(message, "\n  layers_0.moe.experts.*.gate_proj.weight\n")) << message;
  EXPECT_FALSE(has(message, "experts.3.")) << message;
}

TEST_F(Freeze, half_of_a_stored_tensor_and_everything_are_refused) {
  const auto half = failure([&] { train(read("run", {"training.freeze=['*.experts.3.*']"})); });
  EXPECT_TRUE(has(half, "is stored in the same tensor and is not; freeze both")) << half;
  const auto everything = failure([&] { train(read("run", {"training.freeze=['*']"})); });
  EXPECT_TRUE(has(everything, "every parameter is frozen and nothing is left to train")) << everything;
}

}  // namespace
}  // namespace conclave::train
