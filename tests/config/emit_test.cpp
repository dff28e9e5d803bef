// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "conclave/config/scalars.h"
#include "config/sample.h"

using namespace config_sample;

namespace {

const char* const kHardStrings[] = {"",
                                    "yes",
                                    "123",
                                    "1e5",
                                    "null",
                                    "a: b",
                                    "a #b",
                                    " lead",
                                    "trail ",
                                    "it's",
                                    "\"q\"",
                                    "a\\b",
                                    "new\nline",
                                    "tab\t",
                                    "${x}",
                                    "[a]",
                                    "- a",
                                    "-a",
                                    "?",
                                    "é漢🙂",
                                    "\x01\x7f",
                                    "a\xC2\x85"
                                    "b",
                                    "\xE2\x80\xA8",
                                    "\xEF\xBB\xBF"
                                    "a",
                                    "0x1F",
                                    "1:30",
                                    "2001-01-01",
                                    ".inf",
                                    "=",
                                    "<<",
                                    "#",
                                    "%",
                                    "@a",
                                    "a,b",
                                    "{",
                                    "...",
                                    "---",
                                    "a:",
                                    ":a",
                                    "\r\n"};

// Everything set, nothing at its default, strings of the nasty kind.
Root full_root() {
  Root r;
  r.name = "no";
  r.note = "a: b # c\n\"d\"";
  for (const char* text : kHardStrings) r.tags[text] = text;
  r.metrics = {"csv"};
  r.seeds = {INT64_MIN, 0, INT64_MAX};
  r.clip = 1e-8;
  r.every = 3;
  r.moe.emplace();
  r.moe->layers = std::vector<int64_t>{1, 3};
  r.moe->router = {
      .type = "topk",
      .options =
          TopK{.top_k = 3,
               .capacity = {.factor = Value(Schedule{
                                .kind = Schedule::Kind::kLinear, .from = 2.0, .to = 1.25, .end_step = 30}),
                            .min = 7}}};
  r.moe->losses = {{.type = "z_loss", .options = Loss{.weight = 1e-5}},
                   {.type = "load_balancing", .options = {}}};
  r.train = {{.path = "data/shard-*.txt", .weight = 0.1}, {.path = "b", .weight = 1e22}};
  r.training.precision = Precision::kFp32;
  return r;
}

TEST(Emit, dump_parse_read_dump_is_a_fixed_point) {
  for (Root root : {Root{}, full_root()}) {
    const std::string text = dump(root);
    Root again = read(text);
    EXPECT_EQ(dump(again), text);
    EXPECT_EQ(again.tags, root.tags);
    EXPECT_EQ(again.note, root.note);
    EXPECT_EQ(again.name, root.name);
  }
}

TEST(Emit, the_dump_shows_all_keys_with_an_effect) {
  Root root;
  root.moe.emplace();
  EXPECT_EQ(dump(root), R"(name: quick
note: null
tags: {}
metrics: [jsonl, tensorboard]
seeds: []
clip_grad: 1.0
keep_every: null
moe:
  num_experts: 8
  layers: null
  router:
    type: topk
    top_k: 2
    norm_topk_prob: true
    capacity:
      factor: null
      order: position
  noise:
    type: none
  aux_losses: []
train: []
training:
  global_batch_size: 12
  micro_batch_size: 6
  precision: bf16
  lr: 0.0015
  betas: [0.9, 0.95]
  deterministic: false
)");
}

TEST(Emit, every_string_survives_in_block_and_inline_form_as_value_and_as_key) {
  for (const char* text : kHardStrings) {
    Node map = Node::map();
    map.entries.push_back({text, {}, Node::list({Node::scalar(text, true)})});
    Node outer = Node::map();
    outer.entries.push_back({"a", {}, map});
    for (const std::string& yaml : {emit_yaml(outer), emit_yaml_inline(outer) + "\n"}) {
      const Node back = parse_yaml("back", yaml);
      ASSERT_EQ(back.entries.size(), 1u) << yaml;
      EXPECT_EQ(back.entries[0].value.entries[0].key, text) << yaml;
      EXPECT_EQ(back.entries[0].value.entries[0].value.items[0].text, text) << yaml;
    }
  }
}

TEST(Emit, a_plain_scalar_keeps_its_meaning) {
  EXPECT_EQ(emit_yaml_inline(Node::scalar("4M")), "4M");
  EXPECT_EQ(emit_yaml_inline(Node::scalar("true")), "true");
  EXPECT_EQ(emit_yaml_inline(Node::scalar("4M", true)), "\"4M\"");
  EXPECT_EQ(emit_yaml_inline(Node::scalar("a, b")), "\"a, b\"");
  EXPECT_EQ(emit_yaml(Node::map()), "{}\n");
}

TEST(Emit, nested_lists_and_maps_survive) {
  const char* const text =
      "a:\n  - b: 1\n    c:\n      - d: [1, [2, 3]]\n  - {}\n  - []\n  - null\n  -\n    - e: 1\n    - 2\n";
  const Node node = parse_yaml("a", text);
  EXPECT_EQ(emit_yaml(node), text);
  EXPECT_EQ(emit_yaml_inline(parse_yaml("b", emit_yaml_inline(node))), emit_yaml_inline(node));
}

TEST(Emit, each_leaf_is_commented_with_its_origin) {
  const std::string yaml =
      "moe:\n  num_local_experts: 3\n  router: {top_k: 4}\n  aux_losses:\n    - type: z_loss\n"
      "training:\n  lr: {schedule: exp, from: 1, to: 2, end_step: 9}\n";
  Root root;
  Problems problems;
  const Tables t = tables();
  const Node written = parse_yaml("q.yaml", yaml);
  read_fields(declare(root), &t, written, "", problems);
  ASSERT_TRUE(problems.empty()) << problems.render();
  const std::string got = emit_yaml_with_origins(dump_fields(declare(root), &t, &written));
  for (const char* line :
       {"\nclip_grad: 1.0  # default\n", "  num_experts: 3  # q.yaml:2:22\n", "    type: topk  # default\n",
        "    top_k: 4  # q.yaml:3:19\n", "    norm_topk_prob: true  # default\n",
        "  aux_losses:\n    - type: z_loss  # q.yaml:5:13\n      weight: 0.001  # default\n",
        "  lr:\n    schedule: exp  # q.yaml:7:18\n    from: 1.0  # q.yaml:7:29\n    to: 2.0  # q.yaml:7:36\n"
        "    start_step: 0  # default\n    end_step: 9  # q.yaml:7:49\n"})
    expect_part(got, line);
  Root again = read(got);
  EXPECT_EQ(dump(again), dump(root));
}

// Another YAML reader must see numbers as numbers and strings as strings.
TEST(Emit, python_reads_the_same_values) {
  if (std::system("python3 -c 'import yaml' 2>/dev/null") != 0) GTEST_SKIP() << "python3 has no yaml module";
  Root root = full_root();
  const std::string path = testing::TempDir() + "conclave_emit.yaml";
  std::ofstream(path) << dump(root);
  const std::string program = testing::TempDir() + "conclave_emit.py";
  std::ofstream(program)
      << "import sys, yaml\n"
         "d = yaml.safe_load(open(sys.argv[1], encoding='utf-8', newline=''))\n"
         "assert d['name'] == 'no' and d['clip_grad'] == 1e-8, d\n"
         "assert d['note'] == 'a: b # c\\n\"d\"', d\n"
         "assert all(k == v and isinstance(v, str) for k, v in d['tags'].items()), d\n"
         "assert len(d['tags']) == int(sys.argv[2]), d\n"
         "assert d['seeds'] == [-2**63, 0, 2**63 - 1], d\n"
         "assert [x['weight'] for x in d['train']] == [0.1, 1e22], d\n"
         "assert d['moe']['aux_losses'][0]['weight'] == 1e-5, d\n"
         "assert d['training']['deterministic'] is False and d['training']['precision'] == 'fp32'\n";
  const std::string command = "python3 " + program + " " + path + " " + std::to_string(root.tags.size());
  EXPECT_EQ(std::system(command.c_str()), 0) << dump(root);
  std::remove(path.c_str());
  std::remove(program.c_str());
}

}  // namespace
