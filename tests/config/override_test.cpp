// SPDX-License-Identifier: Apache-2.0
#include "config/folder.h"

using namespace config_sample;

namespace {

using Texts = std::vector<std::string>;

TEST(Overrides, set_append_delete_and_reach_into_lists) {
  const char* const yaml = "a: {b: 1, c: 2}\nlist: [x, {u: 3, z: 4}]\n";
  EXPECT_EQ(loaded(yaml, Texts{"a.b=5"}), "a:\n  b: 5\n  c: 2\nlist:\n  - x\n  - u: 3\n    z: 4\n");
  EXPECT_EQ(loaded("a: 1\n", Texts{"b.c.d=[1, two]"}), "a: 1\nb:\n  c:\n    d: [1, two]\n");
  EXPECT_EQ(loaded("a: [1]\n", Texts{"+a=2", "+a=[3]", "+fresh=4"}), "a: [1, 2, [3]]\nfresh: [4]\n");
  EXPECT_EQ(loaded("a: null\n", Texts{"+a=2"}), "a: [2]\n");
  EXPECT_EQ(loaded("a: null\n", Texts{"a.b=2"}), "a:\n  b: 2\n");
  EXPECT_EQ(loaded(yaml, Texts{"~a.b", "~list.0", "list.0.u=9"}), "a:\n  c: 2\nlist:\n  - u: 9\n    z: 4\n");
  EXPECT_EQ(loaded(yaml, Texts{"list.1.u=7", "list.0=w", "~a"}), "list:\n  - w\n  - u: 7\n    z: 4\n");
}

TEST(Overrides, the_right_side_is_yaml) {
  EXPECT_EQ(loaded("a: 1\n", Texts{"a="}), "a: null\n");
  EXPECT_EQ(loaded("a: 1\n", Texts{"a=null"}), "a: null\n");
  EXPECT_EQ(loaded("a: 1\n", Texts{"a='5'"}), "a: \"5\"\n");
  EXPECT_EQ(loaded("a: 1\n", Texts{"a=x=y"}), "a: x=y\n");
  EXPECT_EQ(loaded("a: {b: 1, c: 2}\n", Texts{"a={c: 3, d: 4}"}), "a:\n  b: 1\n  c: 3\n  d: 4\n");
  EXPECT_EQ(loaded("a: {type: topk, k: 2}\n", Texts{"a={type: soft}"}), "a:\n  type: soft\n");
  EXPECT_EQ(loaded("a: [1, 2]\n", Texts{"a=[3]"}), "a: [3]\n");
}

TEST(Overrides, later_ones_win_and_act_on_the_merged_file) {
  EXPECT_EQ(loaded("a: 1\n", Texts{"a=2", "a=3"}), "a: 3\n");
}

TEST(Overrides, lists_that_the_file_leaves_at_their_default_are_extended) {
  Root root;
  root.train = {{.path = "p"}, {.path = "q"}};
  const Tables t = tables();
  const Node defaults = dump_fields(declare(root), &t, nullptr);
  EXPECT_EQ(loaded("name: a\n", Texts{"+metrics=csv"}, &defaults),
            "name: a\nmetrics: [jsonl, tensorboard, csv]\n");
  EXPECT_EQ(loaded("name: a\n", Texts{"metrics=[csv]"}, &defaults), "name: a\nmetrics: [csv]\n");
  EXPECT_EQ(loaded("name: a\n", Texts{"train.1.weight=2"}, &defaults),
            "name: a\ntrain:\n  - path: p\n    weight: 1.0\n  - path: q\n    weight: 2\n");
  EXPECT_EQ(loaded("metrics: [csv]\n", Texts{"+metrics=jsonl"}, &defaults), "metrics: [csv, jsonl]\n");
}

struct Bad {
  const char* text;
  const char* report;  // its begin
};
class RefusedOverride : public testing::TestWithParam<Bad> {};

TEST_P(RefusedOverride, with_a_caret_into_the_command_line) {
  const std::string got = loaded("a: {b: 1, list: [1, 2]}\n", {GetParam().text});
  EXPECT_EQ(got.find(GetParam().report), 0u) << got;
  expect_part(got, "\n1 error; nothing was started.");
}

INSTANTIATE_TEST_SUITE_P(
    Overrides, RefusedOverride,
    testing::Values(
        Bad{"a.b",
            "command line:1:1: error: 'a.b' is not an override\n    1 | a.b\n      | ^~~\n"
            "   write a.b=c to set, +a.b=c to append to a list, ~a.b to delete\n"},
        Bad{"", "command line:1:1: error: '' is not an override\n   write a.b=c"},
        Bad{"=3",
            "command line:1:1: error: '=3' has an empty part in its path\n    1 | =3\n      | ^\n   write "
            "a.b=c\n"},
        Bad{"a..b=3",
            "command line:1:3: error: 'a..b=3' has an empty part in its path\n    1 | a..b=3\n      |   ^\n"},
        Bad{"a.=3", "command line:1:3: error: 'a.=3' has an empty part"},
        Bad{"+=3", "command line:1:2: error: '+=3' has an empty part"},
        Bad{"~", "command line:1:2: error: '~' has an empty part"},
        Bad{"~a.b=3",
            "command line:1:1: error: '~key' deletes and takes no value\n    1 | ~a.b=3\n      | ^~~~~~\n"
            "   write ~a.b\n"},
        Bad{"~a.c",
            "command line:1:4: error: there is no 'a.c' to delete\n    1 | ~a.c\n      |    ^\n"
            "   did you mean 'b'?\n"},
        Bad{"~x.y",
            "command line:1:4: error: there is no 'x.y' to delete\n    1 | ~x.y\n      |    ^\n"
            "   only what the file sets can be deleted\n"},
        Bad{"~a.list.2",
            "command line:1:9: error: 'a.list' has 2 items, there is no item 2\n    1 | ~a.list.2\n"
            "      |         ^\n   items count from 0; append with +a.list=...\n"},
        Bad{"a.list.2=3", "command line:1:8: error: 'a.list' has 2 items, there is no item 2\n"},
        Bad{"a.list.99999999999999999999=3",
            "command line:1:8: error: 'a.list' is a list, and '99999999999999999999' is"},
        Bad{"a.list.first=3",
            "command line:1:8: error: 'a.list' is a list, and 'first' is no index of it\n"
            "    1 | a.list.first=3\n      |        ^~~~~\n"},
        Bad{"a.b.c=3",
            "command line:1:5: error: 'a.b' is a plain value, nothing can be set below it\n"
            "    1 | a.b.c=3\n      |     ^\n   check the path\n"},
        Bad{"+a.b=3",
            "command line:1:4: error: 'a.b' is not a list: '+' appends to lists only\n"
            "    1 | +a.b=3\n      |    ^\n   set the value with a.b=c\n"},
        Bad{"a.b=[1, 2", "command line:1:5: error: not well-formed YAML: end of sequence flow not found\n"},
        Bad{"a.b=c: d: e",
            "command line:1:9: error: not well-formed YAML: illegal map value\n    1 | a.b=c: d: e\n"
            "      |         ^\n"},
        Bad{"a.b=&x 1",
            "command line:1:5: error: anchors and aliases are not supported\n    1 | a.b=&x 1\n      |     "
            "^\n"},
        Bad{"a.b={c: 1, c: 2}", "command line:1:12: error: key 'c' stands twice"},
        Bad{"a.b=# note", "command line:1:1: error: 'a.b=# note' sets no value: the rest is a comment\n"},
        Bad{"a.b=\xff", "command line:1:5: error: byte 4 is not valid UTF-8\n"},
        Bad{"base=other.yaml", "command line:1:1: error: 'base' cannot be set on the command line\n"}));

TEST(Overrides, all_bad_ones_are_reported_at_once) {
  const std::string got = loaded("a: 1\n", Texts{"a", "~b", "c=3", "+a=1"});
  for (const char* part :
       {"'a' is not an override", "there is no 'b' to delete", "'a' is not a list", "\n3 errors;"})
    expect_part(got, part);
}

TEST(Overrides, what_they_set_is_reported_at_its_place_on_the_command_line) {
  const Folder folder;
  const auto file = folder.write("a.yaml", "name: a\n");
  const Node node = load_config(file, {"training.lr=fast", "trainin.lr=3", "clip_grad={a: 1}"});
  Root root;
  const Tables t = tables();
  Problems problems;
  read_fields(declare(root), &t, node, "", problems);
  const std::string got = problems.render();
  expect_part(got,
              "command line:1:13: error: training.lr: expected a number or a schedule, got 'fast'\n"
              "    1 | training.lr=fast\n      |             ^~~~\n");
  expect_part(
      got,
      "command line:1:1: error: unknown key 'trainin' at the top\n    1 | trainin.lr=3\n      | ^~~~~~~\n"
      "   did you mean 'training'?");
  expect_part(got, "command line:1:11: error: clip_grad: expected a number, got a section with keys\n");
}

TEST(Overrides, origins_say_command_line) {
  const Folder folder;
  const auto file = folder.write("a.yaml", "training: {lr: 1.0}\n");
  const Node node = load_config(file, {"training.lr=2", "clip_grad="});
  Root root;
  const Tables t = tables();
  Problems problems;
  read_fields(declare(root), &t, node, "", problems);
  ASSERT_TRUE(problems.empty()) << problems.render();
  const std::string got = emit_yaml_with_origins(dump_fields(declare(root), &t, &node));
  expect_part(got, "  lr: 2.0  # command line\n");
  expect_part(got, "clip_grad: null  # command line\n");
}

TEST(Overrides, deleting_a_required_key_is_an_error_of_the_reader) {
  const Folder folder;
  const auto file = folder.write("a.yaml", "train: [{path: a}]\n");
  const Node node = load_config(file, {"~train.0.path"});
  Root root;
  Problems problems;
  const Tables t = tables();
  read_fields(declare(root), &t, node, "", problems);
  expect_part(problems.render(), "a.yaml:1:9: error: train.0.path is missing\n");
}

}  // namespace
