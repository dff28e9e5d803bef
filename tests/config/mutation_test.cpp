// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "config/folder.h"

using namespace config_sample;

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

// Bytes that mean something to YAML, beside any others.
char random_byte(std::mt19937& random) {
  static constexpr std::string_view kTelling = ":-?,[]{}#&*!|>'\"%@`\n \t~<0189eE.+_kMiB\\$x\xff\x80\xc3\xef";
  return random() % 4 == 0 ? static_cast<char>(random() % 256) : kTelling[random() % kTelling.size()];
}

std::string mutated(std::string text, std::mt19937& random) {
  const size_t changes = 1 + random() % 3;
  for (size_t i = 0; i < changes && !text.empty(); ++i) {
    const size_t at = random() % text.size(), length = 1 + random() % 12;
    switch (random() % 6) {
      case 0:
        text[at] = random_byte(random);
        break;
      case 1:
        text.insert(at, 1, random_byte(random));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(random() % text.size(), text.substr(at, length * 4));
        break;
      case 4:
        text.resize(at);
        break;
      default:
        text[at] = static_cast<char>(text[at] ^ (1 << (random() % 8)));
        break;
    }
  }
  return text;
}

// The whole way of a text; what it ends with, anything else than a ConfigError comes out of here.
enum class End { kRead, kRefused };
End read_text(const std::string& text) {
  try {
    Node node = parse_yaml("m.yaml", text);
    Problems problems;
    interpolate(node, nullptr, problems);
    Root root;
    const Tables t = tables();
    read_fields(declare(root), &t, node, "", problems);
    problems.throw_if_any();
    const std::string dumped = dump(root);
    Root again = read(dumped);
    EXPECT_EQ(dump(again), dumped) << text;
    return End::kRead;
  } catch (const conclave::ConfigError& error) {
    EXPECT_EQ(std::string(error.what()).find("m.yaml:"), 0u) << text << "\n" << error.what();
    return End::kRefused;
  }
}

TEST(Mutations, only_config_errors_come_out_of_a_damaged_file) {
  ASSERT_EQ(read_text(kSample), End::kRead);
  std::mt19937 random(20240607);
  int num_read = 0, num_refused = 0;
  for (int i = 0; i < 6000; ++i) {
    const std::string text = mutated(kSample, random);
    try {
      (read_text(text) == End::kRead ? num_read : num_refused) += 1;
    } catch (const std::exception& error) {
      FAIL() << "round " << i << ": " << error.what() << "\n" << text;
    }
  }
  EXPECT_GT(num_read, 300);  // both ends are well visited
  EXPECT_GT(num_refused, 3000);
}

TEST(Mutations, only_config_errors_come_out_of_damaged_overrides) {
  const Folder folder;
  const auto file = folder.write("a.yaml", kSample);
  std::mt19937 random(77);
  const char* const samples[] = {"training.lr=2.0e-03", "+moe.aux_losses={type: z_loss}",
                                 "~moe.router.capacity.min", "train.0.path='x y'",
                                 "moe.router={type: soft, slots_per_expert: [1, 2]}"};
  for (int i = 0; i < 3000; ++i) {
    const std::string text = mutated(samples[random() % std::size(samples)], random);
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
