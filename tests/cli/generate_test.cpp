// SPDX-License-Identifier: Apache-2.0
// `conclave generate`, `eval` and `config explain FILE` as a user starts them.
#include <sys/wait.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "conclave/core/files.h"
#include "train/temporary_folder.h"

namespace {

namespace fs = std::filesystem;
using conclave::read_file;

struct Finished {
  int code = -1;
  std::string out = {}, err = {};
};

class GenerateProgram : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new conclave::train::TemporaryFolder;
    std::ofstream corpus(*folder_ / "text.jsonl");
    for (int i = 0; i < 40; ++i) {
      corpus << fmt::format(R"({{"text": "sentence {} comes after {}", "kind": "{}"}})", i, i - 1,
                            i % 2 ? "odd" : "even")
             << "\n";
    }
    corpus.close();
    std::ofstream(*folder_ / "tiny.yaml") << R"(
model: {hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, num_key_value_heads: 1,
        moe: {num_experts: 5, moe_intermediate_size: 7, router: {type: topk, top_k: 2, capacity: {factor: 1.0}}}}
data: {seq_length: 21, train: [{path: text.jsonl, label_field: kind}], valid: {fraction: 0.2}}
training: {train_iters: 6, global_batch_size: 4, micro_batch_size: 2}
checkpoint: {interval: 3}
evaluation: {interval: null}
logging: {interval: 1, metrics: [jsonl]}
)";
    const auto trained = run("train tiny.yaml run.output_dir=run");
    ASSERT_EQ(trained.code, 0) << trained.err;
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }

  static Finished run(const std::string& arguments) {
    const char* program = std::getenv("CONCLAVE_BIN");
    if (!program) throw std::runtime_error("CONCLAVE_BIN names no program; run the tests through ctest");
    const std::string command =
        fmt::format("cd '{0}' && CONCLAVE_CACHE='{0}/cache' '{1}' {2} >out 2>err </dev/null",
                    folder_->path().string(), program, arguments);
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(*folder_ / "out"),
            read_file(*folder_ / "err")};
  }

  // Every file of the run folder with its content.
  static std::map<std::string, std::string> contents() {
    std::map<std::string, std::string> files;
    for (const auto& item : fs::recursive_directory_iterator(*folder_ / "run")) {
      if (item.is_regular_file()) files[item.path().string()] = read_file(item.path());
    }
    return files;
  }
  static void refused(const std::string& arguments, int code, const std::string& words) {
    const auto result = run(arguments);
    EXPECT_EQ(result.code, code) << arguments;
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
    EXPECT_EQ(result.out, "") << arguments;
  }

  static conclave::train::TemporaryFolder* folder_;
};
conclave::train::TemporaryFolder* GenerateProgram::folder_ = nullptr;

TEST_F(GenerateProgram, prints_the_bytes_of_the_same_sample_every_time_and_changes_nothing) {
  const auto before = contents();
  const std::string command = "generate run --prompt 'sentence ' --max-tokens 25 --temperature 1.3 --seed 5";
  const auto first = run(command), again = run(command);
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(first.out, again.out);
  EXPECT_FALSE(first.out.empty());
  EXPECT_NE(first.err.find("generation drops none"), std::string::npos) << first.err;
  EXPECT_EQ(first.err.find("drops none"), first.err.rfind("drops none")) << "said more than once";
  EXPECT_NE(first.err.find("at most 21 tokens"), std::string::npos) << first.err;
  const auto two = run(command + " --num-samples 2");
  EXPECT_EQ(two.out.substr(0, first.out.size() + 10), first.out + "\n--------\n");
  EXPECT_EQ(contents(), before);
}

TEST_F(GenerateProgram, takes_a_step_a_checkpoint_folder_and_the_newest) {
  const std::string rest = " --prompt s --max-tokens 12 --temperature 0";
  const auto newest = run("generate run" + rest);
  EXPECT_EQ(newest.code, 0) << newest.err;
  EXPECT_EQ(run("generate run --checkpoint 6" + rest).out, newest.out);
  EXPECT_EQ(run("generate run/checkpoints/step-00000006" + rest).out, newest.out);
  EXPECT_EQ(run("generate run --checkpoint run/checkpoints/step-00000006" + rest).out, newest.out);
  EXPECT_EQ(run("generate run --checkpoint 3" + rest).code, 0);
  fs::copy(*folder_ / "run/checkpoints/step-00000006", *folder_ / "elsewhere", fs::copy_options::recursive);
  refused("generate elsewhere" + rest, 3, "--config");
  EXPECT_EQ(run("generate elsewhere --config tiny.yaml" + rest).out, newest.out);
}

TEST_F(GenerateProgram, refuses_what_it_cannot_do_with_the_reason) {
  refused("generate nowhere", 3, "'nowhere' is no folder");
  refused("generate run --checkpoint 5", 3, "3, 6");
  refused("generate run --temperature -1", 1, "temperature");
  refused("generate run model.moe.router.capacity.eval_factor=1.5", 1, "capacity.eval_factor=null");
  refused("generate run model.moe.router.capacity.order=prob model.moe.router.allow_noncausal=true", 1,
          "later tokens");
  refused("generate run model.objective=masked_lm", 1, "masked_lm");
}

TEST_F(GenerateProgram, eval_scores_every_domain_and_agrees_with_the_end_of_training) {
  const auto before = contents();
  const auto result = run("eval run --output result.json");
  ASSERT_EQ(result.code, 0) << result.err;
  const auto json = nlohmann::json::parse(read_file(*folder_ / "result.json"));
  int64_t bytes = 0;
  double bits = 0;
  for (const char* domain : {"odd", "even"}) {
    const auto& d = json.at("domains").at(domain);
    bytes += d.at("bytes").get<int64_t>();
    bits += d.at("bits_per_byte").get<double>() * d.at("bytes").get<double>();
    EXPECT_NE(result.out.find(domain), std::string::npos) << result.out;
  }
  EXPECT_EQ(json.at("step"), 6);
  EXPECT_EQ(json.at("all").at("bytes"), bytes);
  EXPECT_NEAR(json.at("all").at("bits_per_byte").get<double>(), bits / static_cast<double>(bytes), 1e-9);
  double trained = 0;
  std::ifstream metrics(*folder_ / "run/metrics.jsonl");
  for (std::string line; std::getline(metrics, line);) {
    const auto object = nlohmann::json::parse(line);
    if (object.contains("final/bits_per_byte")) trained = object.at("final/bits_per_byte");
  }
  EXPECT_EQ(json.at("all").at("bits_per_byte").get<double>(), trained);
  EXPECT_EQ(contents(), before);

  const auto sample = run("eval run --max-tokens 60");
  EXPECT_EQ(sample.code, 0) << sample.err;
  EXPECT_NE(sample.out, result.out);
  refused("eval run data.valid.fraction=0", 3, "nothing is held out");
}

TEST_F(GenerateProgram, config_explain_takes_a_key_or_a_file) {
  const auto file = run("config explain tiny.yaml model.moe.num_experts=9");
  EXPECT_EQ(file.code, 0) << file.err;
  for (const char* word : {"active per token", "FLOP per token", "activations of a micro-batch of 2 x 21"}) {
    EXPECT_NE(file.out.find(word), std::string::npos) << file.out;
  }
  EXPECT_NE(file.out, run("config explain tiny.yaml").out);
  const auto ranks = run("config explain tiny.yaml parallelism.data_parallel_size=2");
  EXPECT_NE(ranks.out.find("on each of 2 ranks"), std::string::npos) << ranks.out;
  EXPECT_NE(run("config explain training.train_iters").out.find("Optimizer steps"), std::string::npos);
}

}  // namespace
