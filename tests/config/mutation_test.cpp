// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "config/folder.h"
#include "fuzz/laws.h"
#include "fuzz/mutate.h"

using namespace config_sample;
namespace fuzz = conclave::fuzz;

namespace {

const char* const kSample = R"(# a comment
name: "quick \"one\" é"
note: |
  two
  lines
tags: {purpose: test, 'it''s': x}
metrics: [jsonl, tensorboard]
seeds: [1, 2k, 3_000]
clip_grad: 1.0e-03
moe:
  num_local_experts: 7
  layers: [1, 3]
  router:
    type: topk
    top_k: 2
    capacity: {factor: {schedule: linear, from: 2.0, to: 1.25, end_step: 30}, min: 3}
  aux_losses:
    - {type: load_balancing, weight: 1.0e-02}
    - type: z_loss
train:
  - path: "data/*.txt"
    weight: 0.5
training:
  precision: fp32
  lr: ${env:CONCLAVE_TEST_NONE,1.5e-3}
  betas: [0.9, 0.95]
)";

constexpr std::string_view kTelling = ":-?,[]{}#&*!|>'\"%@`\n \t~<0189eE.+_kMiB\\$x\xff\x80\xc3\xef";

TEST(Mutations, only_config_errors_come_out_of_a_damaged_file) {
  ASSERT_TRUE(fuzz::yaml_law(kSample));
  std::mt19937_64 random(20240607);
  int num_read = 0;
  for (int i = 0; i < fuzz::kMutations; ++i) {
    const std::string text = fuzz::mutated(kSample, kTelling, random);
    try {
      num_read += fuzz::yaml_law(text);
    } catch (const std::exception& error) {
      FAIL() << "round " << i << ": " << error.what() << "\n" << text;
    }
  }
  EXPECT_GT(num_read, fuzz::kMutations / 50);  // both ends are well visited
  EXPECT_LT(num_read, fuzz::kMutations / 2);
}

TEST(Mutations, only_config_errors_come_out_of_damaged_overrides) {
  const Folder folder;
  const auto file = folder.write("a.yaml", kSample);
  std::mt19937_64 random(77);
  const char* const samples[] = {"training.lr=2.0e-03", "+moe.aux_losses={type: z_loss}",
                                 "~moe.router.capacity.min", "train.0.path='x y'",
                                 "moe.router={type: soft, slots_per_expert: [1, 2]}"};
  for (int i = 0; i < 3000; ++i) {
    const std::string text = fuzz::mutated(samples[random() % std::size(samples)], kTelling, random);
    try {
      Problems problems;
      Root root;
      const Tables t = tables();
      read_fields(declare(root), &t, load_config(file, {text}), "", problems);
      problems.throw_if_any();
    } catch (const conclave::ConfigError&) {
    } catch (const std::exception& error) {
      FAIL() << "round " << i << ": " << error.what() << "\n" << text;
    }
  }
}

}  // namespace
