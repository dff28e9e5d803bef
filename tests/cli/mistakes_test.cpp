// SPDX-License-Identifier: Apache-2.0
// Wrong inputs: each with its exit code, its position, what is wrong and what to do.
#include "tiny_run.h"

namespace conclave::cli_tests {
namespace {

struct Mistake {
  std::string name = {};
  std::string from = {}, to = {};  // what is changed in the configuration
  std::vector<std::string> words = {};
};

class WrongFile : public TinyRun, public testing::WithParamInterface<Mistake> {};

TEST_P(WrongFile, is_refused_with_its_position_before_anything_is_written) {
  std::string yaml = kConfig;
  const size_t at = yaml.find(GetParam().from);
  ASSERT_NE(at, std::string::npos);
  write("tiny.yaml", yaml.replace(at, GetParam().from.size(), GetParam().to));
  const Ended ended = train("run");
  EXPECT_EQ(ended.exit_code, kUsage);
  EXPECT_EQ(ended.out, "");
  expect_words(ended.err, GetParam().words);
  EXPECT_FALSE(std::filesystem::exists(path("run")));
}

INSTANTIATE_TEST_SUITE_P(
    Mistakes, WrongFile,
    testing::Values(
        Mistake{"misspelt_key",
                "hidden_size: 12",
                "hiden_size: 12",
                {"tiny.yaml:3:3: ", "hiden_size", "did you mean 'hidden_size'?"}},
        Mistake{"wrong_type",
                "hidden_size: 12",
                "hidden_size: wide",
                {"tiny.yaml:3:16: ", "hidden_size", "wide"}},
        Mistake{"duplicate_key",
                "num_hidden_layers: 2",
                "hidden_size: 2",
                {"tiny.yaml:4:3: ", "hidden_size", "stands twice (first on line 3, again on line 4)",
                 "keep one"}},
        Mistake{"indivisible_batch",
                "global_batch_size: 6",
                "global_batch_size: 7",
                {"tiny.yaml:17:48: ", "7 is not divisible by micro_batch_size 3", "use 6 or 9"}},
        Mistake{"more_choices_than_experts",
                "top_k: 2",
                "top_k: 6",
                {"tiny.yaml:10:33: ", "each token takes 6 experts, but there are 5", "use at most 5"}},
        Mistake{"negative_capacity_factor",
                "top_k: 2",
                "top_k: 2, capacity: {factor: -1}",
                {"tiny.yaml:10:55: ", "factor", "-1"}},
        Mistake{"guard_is_off",
                "top_k: 2",
                "top_k: 2, capacity: {min: 3}",
                {"tiny.yaml:10:47: ", "min", "has no effect here", "factor", "null"}},
        Mistake{"expert_choice_predicting_tokens",
                "{type: topk, top_k: 2, jitter_eps: 0.01}",
                "{type: expert_choice}",
                {"tiny.yaml:10:13: ", "'expert_choice'", "looks at later tokens", "allow_noncausal"}},
        Mistake{"soft_moe_predicting_tokens",
                "{type: topk, top_k: 2, jitter_eps: 0.01}",
                "{type: soft}",
                {"tiny.yaml:10:13: ", "'soft'", "looks at later tokens", "allow_noncausal"}}),
    [](const auto& info) { return info.param.name; });

class WrongInput : public TinyRun {};

TEST_F(WrongInput, all_mistakes_of_a_file_are_told_at_once) {
  const Ended ended = train("run", {"model.hiden_size=3", "training.train_iters=-4", "optimizer.lr=fast"});
  EXPECT_EQ(ended.exit_code, kUsage);
  expect_words(ended.err, {"hiden_size", "did you mean 'hidden_size'?"});
  expect_words(ended.err, {"train_iters", "-4"});
  expect_words(ended.err, {"optimizer.lr", "fast"});
}

TEST_F(WrongInput, a_capacity_that_leaves_no_slot_names_the_number_of_tokens) {
  const Ended ended = train("run", {"model.moe.router.capacity={factor: 0.01, rounding: floor, min: 0}"});
  EXPECT_EQ(ended.exit_code, kFailed);
  expect_words(ended.err, {"capacity", "T = 63"});
}

TEST_F(WrongInput, a_missing_file_is_named) {
  const Ended config = conclave({"train", "absent.yaml"});
  EXPECT_EQ(config.exit_code, kUsage);
  expect_words(config.err, {"absent.yaml"});
  const Ended corpus = train("run", {"data.train.0.path=absent.txt"});
  EXPECT_EQ(corpus.exit_code, kBadData);
  expect_words(corpus.err, {"absent.txt"});
  const Ended checkpoint = conclave({"checkpoint", "verify", "absent"});
  EXPECT_EQ(checkpoint.exit_code, kBadData);
  expect_words(checkpoint.err, {"absent", "No such file"});
}

TEST_F(WrongInput, an_empty_corpus_is_named) {
  write("text.txt", "");
  const Ended ended = train("run");
  EXPECT_EQ(ended.exit_code, kBadData);
  expect_words(ended.err, {"text.txt", "holds no text"});
}

TEST_F(WrongInput, bad_text_is_placed) {
  write("text.txt", "fine\n\nnot \xC3( fine\n");
  const Ended ended = train("run");
  EXPECT_EQ(ended.exit_code, kBadData);
  expect_words(ended.err, {"text.txt", "byte 10", "not UTF-8", "iconv"});
}

TEST_F(WrongInput, a_run_folder_of_another_config_shows_the_difference) {
  ASSERT_EQ(train("run", {"training.train_iters=2"}).exit_code, 0);
  const std::string before = text("run/metrics.jsonl");
  const Ended ended = train("run", {"training.train_iters=2", "optimizer.lr=0.5"});
  EXPECT_EQ(ended.exit_code, kUsage);
  expect_words(ended.err, {"run' holds a run of another config", "optimizer.lr", "0.003", "0.5", "--fresh"});
  EXPECT_EQ(text("run/metrics.jsonl"), before);
}

TEST_F(WrongInput, a_checkpoint_of_another_shape_is_refused_with_the_tensors_name) {
  ASSERT_EQ(train("run", {"training.exit_after=2"}).exit_code, 0);
  // The folder claims the larger model, the checkpoint is of the smaller one.
  std::string resolved = text("run/resolved_config.yaml");
  const std::string from = "hidden_size: 12", to = "hidden_size: 18";
  const size_t at = resolved.find(from);
  ASSERT_NE(at, std::string::npos) << resolved;
  write("run/resolved_config.yaml", resolved.replace(at, from.size(), to));
  const Ended ended = train("run", {"training.exit_after=2", "model.hidden_size=18"});
  EXPECT_EQ(ended.exit_code, kBadData);
  expect_words(ended.err, {"tensor 'embed_tokens'", "12", "18"});
}

TEST_F(WrongInput, a_misspelt_command_or_option_is_answered_with_the_nearest) {
  struct Case {
    std::vector<std::string> arguments = {}, words = {};
  };
  for (const auto& [arguments, words] : std::vector<Case>{
           {{"trian", "tiny.yaml"}, {"unknown command 'trian'", "did you mean 'train'?"}},
           {{"data", "biuld", "domains4"}, {"unknown command 'biuld'", "did you mean 'build'?"}},
           {{"train", "tiny.yaml", "--dryrun"}, {"unknown option '--dryrun'", "did you mean '--dry-run'?"}},
           {{"train"}, {"config is required"}},
           {{}, {"subcommand is required"}}}) {
    const Ended wrong = conclave(arguments);
    EXPECT_EQ(wrong.exit_code, kUsage) << wrong.out;
    expect_words(wrong.err, words);
  }
}

TEST_F(WrongInput, a_folder_that_holds_something_else_is_never_touched) {
  write("mine/notes.txt", "keep");
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--fresh"}}) {
    const Ended ended = train("mine", more);
    EXPECT_EQ(ended.exit_code, kUsage);
    expect_words(ended.err,
                 {"mine' is not empty and holds no run", "notes.txt", "choose another run.output_dir"});
  }
  EXPECT_EQ(text("mine/notes.txt"), "keep");
}

}  // namespace
}  // namespace conclave::cli_tests
