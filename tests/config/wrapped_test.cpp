// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/wrapped.h"

#include "conclave/config/describe.h"
#include "config/sample.h"

using namespace config_sample;

namespace {

struct Wrapped {
  std::optional<int64_t> size = {};
  Plugin router = {.type = "topk", .options = {}};
  bool allow = false;
  void fields(Fields& f) {
    or_auto(f("size", size, "Rows.")).min(3).alias("rows");
    beside_options(f.plugin("router", router, "routers", "Who goes where."),
                   [this](Fields& g) { g("allow", allow, "Permission."); });
  }
};

TEST(OrAuto, auto_leaves_the_member_empty_and_comes_back_in_the_dump) {
  EXPECT_EQ(read<Wrapped>("size: auto").size, std::nullopt);
  EXPECT_EQ(read<Wrapped>("rows: 7").size, 7);
  Wrapped automatic, number{.size = 11};
  expect_part(dump(automatic), "size: auto\n");
  expect_part(dump(number), "size: 11\n");
}

TEST(OrAuto, null_other_words_and_small_numbers_are_refused) {
  expect_part(errors_of<Wrapped>("size: null"), "a.yaml:1:7: error: size: null is not a value of this key");
  expect_part(errors_of<Wrapped>("size: automatic"), "size: expected a whole number, got 'automatic'");
  expect_part(errors_of<Wrapped>("size: 2"), "size: 2 is out of range (>= 3)");
}

TEST(OrAuto, reference_and_schema_know_the_word) {
  Wrapped w;
  const Tables t = tables();
  expect_part(reference_page(declare(w), &t, "x"), "| `size` | integer or auto | `auto` | >= 3 |");
  expect_part(json_schema(declare(w), &t, "x"), "|^auto$");
}

TEST(BesideOptions, the_key_stands_beside_the_options_of_any_plugin_and_belongs_to_the_struct) {
  const auto soft = read<Wrapped>("router: {type: soft, allow: true, slots_per_expert: 2.5}");
  EXPECT_TRUE(soft.allow);
  EXPECT_EQ(soft.router.options.as<Soft>().slots, 2.5);
  auto topk = read<Wrapped>("router: {allow: true}");
  EXPECT_TRUE(topk.allow);
  EXPECT_EQ(topk.router.options.as<TopK>().top_k, 2);
  const std::string text = dump(topk);
  expect_part(text, "  allow: true\n");
  auto again = read<Wrapped>(text);
  EXPECT_EQ(dump(again), text);
}

TEST(BesideOptions, mistakes_in_both_parts_are_found_and_the_key_is_described_once) {
  const auto got = errors_of<Wrapped>("router: {type: soft, allow: 3, top_k: 2}");
  expect_part(got, "router.allow: expected true or false");
  expect_part(got, "'top_k' is not a key of router 'soft'");
  Wrapped w;
  const Tables t = tables();
  int found = 0;
  for (const auto& key : all_keys(declare(w), &t)) found += key.path == "router.allow";
  EXPECT_EQ(found, 1);
  const std::string schema = json_schema(declare(w), &t, "x");
  EXPECT_NE(schema.find("\"allow\""), schema.rfind("\"allow\"")) << "one in each plug-in's definition";
}

}  // namespace
