// SPDX-License-Identifier: Apache-2.0
#include "config/sample.h"

using namespace config_sample;

namespace {

struct Mistake {
  const char* yaml;
  const char* place_and_message;
  const char* remedy;
};
class Refuses : public testing::TestWithParam<Mistake> {};

TEST_P(Refuses, with_place_message_and_remedy) {
  const std::string got = errors_of(GetParam().yaml);
  EXPECT_EQ(got.find(std::string(GetParam().place_and_message) + "\n"), 0u) << got;
  expect_part(got, std::string("\n   ") + GetParam().remedy + "\n");
  expect_part(got, "\n1 error; nothing was started.");
}

constexpr const char* kUnitsRemedy =
    "units are k, M, G, T and Ki, Mi, Gi, Ti, with or without a B behind; 1_000 and 1.0e-03 work too";

INSTANTIATE_TEST_SUITE_P(
    Types, Refuses,
    testing::Values(
        Mistake{"keep_every: many", "a.yaml:1:13: error: keep_every: expected a whole number, got 'many'",
                kUnitsRemedy},
        Mistake{"keep_every: 2B", "a.yaml:1:13: error: keep_every: expected a whole number, got '2B'",
                kUnitsRemedy},
        Mistake{"keep_every: 1.5", "a.yaml:1:13: error: keep_every: expected a whole number, got '1.5'",
                kUnitsRemedy},
        Mistake{"keep_every: '3'",
                "a.yaml:1:13: error: keep_every: expected a whole number, got the string '3'",
                "remove the quotes"},
        Mistake{"keep_every: 9223372036854775808",
                "a.yaml:1:13: error: keep_every: expected a whole number, got '9223372036854775808'",
                "whole numbers lie between -9223372036854775808 and 9223372036854775807"},
        Mistake{"keep_every: [1]", "a.yaml:1:13: error: keep_every: expected a whole number, got a list",
                kUnitsRemedy},
        Mistake{"clip_grad: .inf", "a.yaml:1:12: error: clip_grad: expected a number, got '.inf'",
                kUnitsRemedy},
        Mistake{"clip_grad: nan", "a.yaml:1:12: error: clip_grad: expected a number, got 'nan'",
                kUnitsRemedy},
        Mistake{"clip_grad: {schedule: linear, from: 1, to: 2, end_step: 3}",
                "a.yaml:1:12: error: clip_grad: expected a number, got a section with keys",
                "this key takes no schedule; write one number"},
        Mistake{"training: {lr: fast}",
                "a.yaml:1:16: error: training.lr: expected a number or a schedule, got 'fast'", kUnitsRemedy},
        Mistake{"training: {deterministic: yes}",
                "a.yaml:1:27: error: training.deterministic: expected true or false, got 'yes'",
                "write true or false, without quotes"},
        Mistake{"training: {deterministic: 'true'}",
                "a.yaml:1:27: error: training.deterministic: expected true or false, got the string 'true'",
                "write true or false, without quotes"},
        Mistake{"name: {a: 1}", "a.yaml:1:7: error: name: expected a string, got a section with keys",
                "quote it if it contains brackets, or is the word null"},
        Mistake{"name: null", "a.yaml:1:7: error: name: null is not a value of this key",
                "leave the key out to get its default"},
        Mistake{"name:", "a.yaml:1:1: error: name: null is not a value of this key",
                "leave the key out to get its default"},
        Mistake{"training:\nname: a", "a.yaml:1:1: error: training: null is not a value of this key",
                "leave the key out to get its default"},
        Mistake{"training: 3", "a.yaml:1:11: error: training: expected a section with keys, got '3'",
                "write its keys below it, or {key: value}"},
        Mistake{"moe: [1]", "a.yaml:1:6: error: moe: expected a section with keys, got a list",
                "write its keys below it, or {key: value}"},
        Mistake{"tags: [a]", "a.yaml:1:7: error: tags: expected a map of strings, got a list",
                "write {key: value, ...}"},
        Mistake{"tags: {a: [1]}", "a.yaml:1:11: error: tags.a: expected a string, got a list",
                "quote it if it contains brackets, or is the word null"},
        Mistake{"seeds: 3", "a.yaml:1:8: error: seeds: expected a list, got '3'", "write [a, b]"},
        Mistake{"seeds: [1, x]", "a.yaml:1:12: error: seeds.1: expected a whole number, got 'x'",
                kUnitsRemedy},
        Mistake{"train: {path: a}",
                "a.yaml:1:8: error: train: expected a list of sections, got a section with keys",
                "write '- {key: value}' items"},
        Mistake{"train: [a]", "a.yaml:1:9: error: train.0: expected a section with keys, got 'a'",
                "write its keys below it, or {key: value}"}));

INSTANTIATE_TEST_SUITE_P(
    Values, Refuses,
    testing::Values(
        Mistake{"training: {micro_batch_size: 0}",
                "a.yaml:1:30: error: training.micro_batch_size: 0 is out of range (>= 1 and <= 4096)",
                "write a value >= 1 and <= 4096"},
        Mistake{"training: {micro_batch_size: 4.1k}",
                "a.yaml:1:30: error: training.micro_batch_size: 4.1k is out of range (>= 1 and <= 4096)",
                "write a value >= 1 and <= 4096"},
        Mistake{"clip_grad: 0.0", "a.yaml:1:12: error: clip_grad: 0.0 is out of range (> 0)",
                "write a value > 0"},
        Mistake{"training: {betas: [0.9, 1.0]}",
                "a.yaml:1:25: error: training.betas.1: 1.0 is out of range (>= 0 and < 1)",
                "write a value >= 0 and < 1"},
        Mistake{"moe: {layers: [2, -1]}", "a.yaml:1:19: error: moe.layers.1: -1 is out of range (>= 0)",
                "write a value >= 0"},
        Mistake{"training: {lr: {schedule: linear, from: 1.0, to: -0.5, end_step: 9}}",
                "a.yaml:1:50: error: training.lr.to: -0.5 is out of range (> 0)", "write a value > 0"},
        Mistake{"training: {lr: {schedule: multistep, values: [1.0, 0], steps: [9]}}",
                "a.yaml:1:52: error: training.lr.values.1: 0 is out of range (> 0)", "write a value > 0"},
        Mistake{"training: {precision: bf61}", "a.yaml:1:23: error: training.precision: unknown value 'bf61'",
                "did you mean 'bf16'?  choices: fp32, bf16"},
        Mistake{"training: {precision: half}", "a.yaml:1:23: error: training.precision: unknown value 'half'",
                "choices: fp32, bf16"},
        Mistake{"training: {precision: [fp32]}",
                "a.yaml:1:23: error: training.precision: expected one word, got a list",
                "choices: fp32, bf16"},
        Mistake{"metrics: [jsonl, tensorbord]", "a.yaml:1:18: error: metrics.1: unknown value 'tensorbord'",
                "did you mean 'tensorboard'?  choices: jsonl, tensorboard, csv"}));

INSTANTIATE_TEST_SUITE_P(
    Keys, Refuses,
    testing::Values(
        Mistake{
            "training:\n  micro_batch_sice: 3",
            "a.yaml:2:3: error: unknown key 'micro_batch_sice' in training",
            "did you mean 'micro_batch_size'?  (other keys here: global_batch_size, precision, lr, betas, "
            "deterministic)"},
        Mistake{"moe: {num_local_expert: 3}", "a.yaml:1:7: error: unknown key 'num_local_expert' in moe",
                "did you mean 'num_local_experts'?  (other keys here: num_experts, layers, router, noise, "
                "aux_losses)"},
        Mistake{"training: {wholly_other: 3}", "a.yaml:1:12: error: unknown key 'wholly_other' in training",
                "(keys here: global_batch_size, micro_batch_size, precision, lr, betas, deterministic)"},
        Mistake{"training: {rate:3}", "a.yaml:1:12: error: unknown key 'rate:3' in training",
                "write a space behind the ':'  (keys here: global_batch_size, micro_batch_size, precision, "
                "lr, betas, "
                "deterministic)"},
        Mistake{"moe: {num_experts: 3, num_local_experts: 3}",
                "a.yaml:1:23: error: 'num_experts' and 'num_local_experts' are the same key of moe",
                "keep 'num_experts'"},
        Mistake{"train:\n  - {weight: 2}", "a.yaml:2:5: error: train.0.path is missing", "required: File."},
        Mistake{"moe:\n  router:\n    capacity:\n      min: 3",
                "a.yaml:4:7: error: moe.router.capacity.min has no effect here: factor is null",
                "remove the key, or switch its feature on"}));

}  // namespace
