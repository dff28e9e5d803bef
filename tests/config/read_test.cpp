// SPDX-License-Identifier: Apache-2.0
#include "config/sample.h"

using namespace config_sample;

namespace {

TEST(Read, every_kind_of_member_is_read) {
  const Root r = read(R"(
name: 123
note: null
tags: {purpose: test, "1": "2"}
metrics: [csv]
seeds: [1, 2k]
clip_grad: null
keep_every: 5_000
moe: {num_experts: 7, layers: [1, 3]}
train:
  - {path: a.txt, weight: 0.7}
  - {path: b.txt}
training: {precision: fp32, lr: 2.0e-04, betas: [0.5, 0.75], deterministic: true, global_batch_size: 1.2k}
)");
  EXPECT_EQ(r.name, "123");
  EXPECT_FALSE(r.note.has_value());
  EXPECT_EQ(r.tags, (std::map<std::string, std::string>{{"purpose", "test"}, {"1", "2"}}));
  EXPECT_EQ(r.metrics, std::vector<std::string>{"csv"});
  EXPECT_EQ(r.seeds, (std::vector<int64_t>{1, 2000}));
  EXPECT_FALSE(r.clip.has_value());
  EXPECT_EQ(r.every, 5000);
  ASSERT_TRUE(r.moe.has_value());
  EXPECT_EQ(r.moe->num_experts, 7);
  EXPECT_EQ(*r.moe->layers, (std::vector<int64_t>{1, 3}));
  ASSERT_EQ(r.train.size(), 2u);
  EXPECT_EQ(r.train[0].weight, 0.7);
  EXPECT_EQ(r.train[1].path, "b.txt");
  EXPECT_EQ(r.training.precision, Precision::kFp32);
  EXPECT_EQ(r.training.lr.at(99), 2e-4);
  EXPECT_EQ(r.training.betas, (std::vector<double>{0.5, 0.75}));
  EXPECT_TRUE(r.training.deterministic);
  EXPECT_EQ(r.training.global_batch_size, 1200);
}

TEST(Read, what_the_file_leaves_out_keeps_its_default) {
  const Root r = read("training: {micro_batch_size: 3}");
  EXPECT_EQ(r.training.global_batch_size, 12);
  EXPECT_EQ(r.name, "quick");
  EXPECT_EQ(r.metrics.size(), 2u);
  EXPECT_FALSE(r.moe.has_value());
}

TEST(Read, all_mistakes_are_reported_at_once_in_the_order_of_the_file) {
  EXPECT_EQ(
      errors_of("training:\n  lr: -1\n  prcision: bf16\nclip_grad: big\n"),
      "a.yaml:2:7: error: training.lr: -1 is out of range (> 0)\n    2 |   lr: -1\n      |       ^~\n"
      "   write a value > 0\n"
      "a.yaml:3:3: error: unknown key 'prcision' in training\n    3 |   prcision: bf16\n      |   ^~~~~~~~\n"
      "   did you mean 'precision'?  (other keys here: global_batch_size, micro_batch_size, lr, betas, "
      "deterministic)\n"
      "a.yaml:4:12: error: clip_grad: expected a number, got 'big'\n    4 | clip_grad: big\n      |          "
      "  ^~~\n"
      "   units are k, M, G, T and Ki, Mi, Gi, Ti, with or without a B behind; 1_000 and 1.0e-03 work too\n"
      "3 errors; nothing was started. See 'conclave config explain training.lr'.");
}

TEST(Read, conditions_over_several_keys_run_when_all_of_them_are_readable) {
  const std::string got = errors_of("training:\n  global_batch_size: 20\n");
  expect_part(
      got, "a.yaml:2:22: error: training.global_batch_size: 20 is not divisible by micro_batch_size (6)\n");
  expect_part(got, "\n   change one of them\n");
  const std::string broken = errors_of("training:\n  global_batch_size: 20\n  lr: x\n");
  EXPECT_EQ(broken.find("divisible"), std::string::npos) << broken;
}

TEST(Read, a_section_the_file_leaves_out_is_still_checked) {
  struct Strict {
    Corpus source = {};
    Training training = {.global_batch_size = 7};
    void fields(Fields& f) {
      f("source", source, "Where from.");
      f("training", training, "Loop.");
    }
  };
  const std::string got = errors_of("{}", Strict{});
  expect_part(got, "a.yaml:1:1: error: source.path is missing");
  expect_part(got, "training.global_batch_size: 7 is not divisible by micro_batch_size (6)");
  expect_part(got, "2 errors");
}

TEST(Read, null_counts_as_not_set_where_it_is_a_value) {
  struct Guarded {
    bool on = false;
    std::optional<int64_t> size = {};
    void fields(Fields& f) {
      f("on", on, "Switch.");
      f("size", size, "Size.").only_if([this] { return on; }, "'on' is false");
    }
  };
  EXPECT_EQ(errors_of("size: null", Guarded{}), "");
  EXPECT_EQ(errors_of("{on: true, size: 3}", Guarded{}), "");
  expect_part(errors_of("size: 3", Guarded{}), "a.yaml:1:1: error: size has no effect here: 'on' is false");
  // A guard over a member that could not be read would only repeat the first mistake.
  expect_part(errors_of("{on: maybe, size: 3}", Guarded{}), "\n1 error;");
}

TEST(Read, an_alias_is_read_with_a_note) {
  Moe moe;
  Problems problems;
  const Tables t = tables();
  read_fields(declare(moe), &t, parse_yaml("a.yaml", "num_local_experts: 5\nrouter:\n  moe_router_topk: 3\n"),
              "moe", problems);
  EXPECT_TRUE(problems.empty()) << problems.render();
  EXPECT_EQ(moe.num_experts, 5);
  EXPECT_EQ(moe.router.options.as<TopK>().top_k, 3);
  EXPECT_EQ(problems.note_lines(),
            (std::vector<std::string>{
                "a.yaml:1:1: note: 'moe.num_local_experts' is read as 'moe.num_experts'",
                "a.yaml:3:3: note: 'moe.router.moe_router_topk' is read as 'moe.router.top_k'"}));
}

TEST(Read, a_condition_can_ask_what_was_written_also_through_aliases_lists_and_plugins) {
  struct Asking {
    Moe moe = {};
    std::vector<Corpus> train = {};
    void fields(Fields& f) {
      f("moe", moe, "Moe.");
      f("train", train, "Sources.");
      f.check([](Check& check) {
        for (const char* key :
             {"moe", "moe.num_experts", "moe.layers", "moe.router.top_k", "moe.router.type",
              "moe.router.capacity.factor", "moe.router.capacity.min", "train.0", "train.0.weight",
              "train.0.path", "train.1", "train.x", "nothing", "moe.nothing.at_all"}) {
          if (check.is_set(key)) check.error(key, "is set", "");
        }
        check.error("moe.layers", "is not set", "");
      });
    }
  };
  const std::string got = errors_of(
      "moe:\n  num_local_experts: 3\n  router:\n    moe_router_topk: 1\n    capacity: "
      "{moe_expert_capacity_factor: 2}\n"
      "train:\n  - path: a\n",
      Asking{});
  for (const char* part : {"a.yaml:2:3: error: moe: is set", "a.yaml:2:22: error: moe.num_experts: is set",
                           "a.yaml:4:22: error: moe.router.top_k: is set",
                           "a.yaml:5:44: error: moe.router.capacity.factor: is set",
                           "a.yaml:7:5: error: train.0: is set", "a.yaml:7:11: error: train.0.path: is set",
                           "a.yaml:2:3: error: moe.layers: is not set", "\n7 errors;"})
    expect_part(got, part);
}

TEST(Read, a_struct_filled_by_the_program_needs_no_source) {
  Root root;
  Problems problems;
  Node node = Node::map();
  node.entries.push_back({"clip_grad", {}, Node::scalar("-1")});
  const Tables t = tables();
  read_fields(declare(root), &t, node, "", problems);
  expect_part(problems.render(),
              "error: clip_grad: -1 is out of range (> 0)\n   write a value > 0\n1 error;");
  EXPECT_THROW(problems.throw_if_any(), conclave::ConfigError);
}

TEST(Read, names_are_suggested_only_when_they_are_near) {
  const std::vector<std::string> known = {"topk", "expert_choice", "soft", "dselect_k"};
  EXPECT_EQ(nearest("tpok", known), "topk");
  EXPECT_EQ(nearest("expert_choise", known), "expert_choice");
  EXPECT_EQ(nearest("quadratic", known), "");
  EXPECT_EQ(nearest("", known), "");
  EXPECT_EQ(nearest(std::string(100000, 'x'), known), "");
  EXPECT_EQ(unknown_name("router", "sofd", known),
            "unknown router 'sofd'; did you mean 'soft'? (known: topk, expert_choice, soft, dselect_k)");
}

}  // namespace
