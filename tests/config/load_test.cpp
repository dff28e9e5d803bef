// SPDX-License-Identifier: Apache-2.0
#include "config/folder.h"

using namespace config_sample;

namespace {

TEST(Base, a_file_is_a_patch_on_its_base_maps_merge_and_lists_replace) {
  const Folder folder;
  folder.write("shared/bottom.yaml", "a: {x: 1, u: 2}\nlist: [1, 2, 3]\nkeep: yes\nsection: {b: 1}\n");
  folder.write("shared/middle.yaml", "base: bottom.yaml\na: {u: 3, z: 4}\nsection: null\n");
  const auto top = folder.write("top.yaml", "base: shared/middle.yaml\nlist: [9]\na: {x: 7}\n");
  const Node node = load_config(top, {});
  EXPECT_EQ(emit_yaml(node), "a:\n  x: 7\n  u: 3\n  z: 4\nlist: [9]\nkeep: yes\nsection: null\n");
  EXPECT_EQ(node.find("a")->find("x")->origin.source->name, top.string());
  EXPECT_EQ(node.find("a")->find("x")->origin.line, 3);
  EXPECT_EQ(node.find("a")->find("z")->origin.source->name,
            (top.parent_path() / "shared/middle.yaml").string());
  EXPECT_EQ(node.find("keep")->origin.line, 3);
}

TEST(Base, another_plugin_or_schedule_replaces_the_one_below_whole) {
  const Folder folder;
  folder.write(
      "b.yaml",
      "router: {type: topk, top_k: 2}\nlr: {schedule: exp, from: 1, to: 2}\nsame: {type: a, x: 1}\n");
  const auto file = folder.write(
      "a.yaml",
      "base: b.yaml\nrouter: {type: soft}\nlr: {schedule: constant, from: 3}\nsame: {type: a, u: 2}\n");
  EXPECT_EQ(
      emit_yaml(load_config(file, {})),
      "router:\n  type: soft\nlr:\n  schedule: constant\n  from: 3\nsame:\n  type: a\n  x: 1\n  u: 2\n");
}

std::string refusal(const std::filesystem::path& file) {
  try {
    load_config(file, {});
    return "";
  } catch (const conclave::ConfigError& error) {
    return error.what();
  }
}

TEST(Base, circles_are_told_with_the_way_around) {
  const Folder folder;
  const auto a = folder.write("a.yaml", "x: 1\nbase: sub/b.yaml\n");
  folder.write("sub/b.yaml", "base: ../sub/../a.yaml\n");
  const auto self = folder.write("self.yaml", "base: self.yaml\n");
  expect_part(refusal(a), "/sub/b.yaml:1:7: error: 'base' leads in a circle: a.yaml -> b.yaml -> a.yaml\n");
  expect_part(refusal(self), "/self.yaml:1:7: error: 'base' leads in a circle: self.yaml -> self.yaml\n");
}

TEST(Base, a_base_that_cannot_be_read_is_told_where_it_was_asked_for) {
  const Folder folder;
  expect_part(refusal(folder.write("a.yaml", "x: 1\nbase: gone.yaml\n")), "/a.yaml:2:7: error: ");
  expect_part(refusal(folder.write("a.yaml", "x: 1\nbase: gone.yaml\n")), "gone.yaml");
  expect_part(refusal(folder.write("b.yaml", "base: [a]\n")),
              "/b.yaml:1:7: error: 'base' names one file, got [a]");
  expect_part(refusal(folder.write("b.yaml", "base: null\n")),
              "/b.yaml:1:7: error: 'base' names one file, got null");
  expect_part(refusal(folder.write("b.yaml", "base: ${env:X}\n")), "'base' names one file");
  folder.write("c.yaml", "x: [\n");
  expect_part(refusal(folder.write("d.yaml", "base: c.yaml\n")), "/c.yaml:2:1: error: not well-formed YAML");
}

TEST(Load, a_missing_file_or_a_folder_is_told_with_its_name) {
  expect_part(refusal("no/such/file.yaml"), "command line:1:1: error: ");
  expect_part(refusal("no/such/file.yaml"), "no/such/file.yaml");
  expect_part(refusal(testing::TempDir()), "command line:1:1: error: ");
}

TEST(Relocate, a_key_in_another_place_moves_to_its_own_with_a_note) {
  Node tree = parse_yaml("a.yaml", "model:\n  num_experts_per_tok: 3\n  hidden_size: 12\n");
  Problems problems;
  relocate_keys(tree,
                {{"model.num_experts_per_tok", "model.moe.router.top_k"}, {"model.gone", "model.moe.x"}},
                problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(emit_yaml(tree), "model:\n  hidden_size: 12\n  moe:\n    router:\n      top_k: 3\n");
  EXPECT_EQ(tree.find("model")->find("moe")->find("router")->find("top_k")->origin.line, 2);
  EXPECT_EQ(problems.note_lines(),
            std::vector<std::string>{
                "a.yaml:2:3: note: 'model.num_experts_per_tok' is read as 'model.moe.router.top_k'"});
}

TEST(Relocate, both_spellings_or_no_place_to_move_to_are_errors) {
  Node tree = parse_yaml("a.yaml", "old: 3\nnew: {key: 4}\nlost: 1\nflat: 2\n");
  Problems problems;
  relocate_keys(tree, {{"old", "new.key"}, {"lost", "flat.key"}}, problems);
  expect_part(problems.render(), "a.yaml:1:1: error: 'old' and 'new.key' are the same key\n");
  expect_part(problems.render(),
              "a.yaml:3:1: error: 'lost' belongs at 'flat.key', where no section can stand\n");
}

TEST(Differences, are_one_line_a_key_and_compare_numbers_by_value) {
  const Node a =
      parse_yaml("a",
                 "same: 1_000\nlr: 1.0e-03\ngone: x\nlist: [1, 2]\nshort: [1]\nm: {t: true, u: 1}\nq: \"5\"\n"
                 "p: \"w\"\nn: null\nbig: 9007199254740993\n");
  const Node b =
      parse_yaml("b",
                 "same: 1k\nlr: 0.002\nlist: [1, 3]\nshort: [1, 2]\nm: {t: false, u: 1.0}\nfresh: {a: 1}\n"
                 "q: 5\np: w\nn: ~\nbig: 9007199254740992\n");
  EXPECT_EQ(
      differences(a, b),
      (std::vector<std::string>{"lr: 1.0e-03 -> 0.002", "gone: x -> (absent)", "list.1: 2 -> 3",
                                "short: [1] -> [1, 2]", "m.t: true -> false", "q: \"5\" -> 5",
                                "big: 9007199254740993 -> 9007199254740992", "fresh: (absent) -> {a: 1}"}));
  EXPECT_TRUE(differences(a, a).empty());
}

}  // namespace
