// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/scalars.h"
#include "config/sample.h"

using namespace config_sample;

namespace {

TEST(Plugins, options_stand_beside_the_type_and_start_from_the_defaults_of_that_plugin) {
  const Moe moe =
      *read("moe: {router: {type: soft, slots_per_expert: 2.5}, aux_losses: [{type: z_loss}]}").moe;
  EXPECT_EQ(moe.router.type, "soft");
  EXPECT_EQ(moe.router.options.as<Soft>().slots, 2.5);
  ASSERT_EQ(moe.losses.size(), 1u);
  EXPECT_EQ(moe.losses[0].options.as<Loss>().weight.at(0), 1e-3);
}

TEST(Plugins, without_a_type_the_present_plugin_stays_with_its_options) {
  const Moe defaults = *read("moe: {}").moe;
  EXPECT_EQ(defaults.router.options.as<TopK>().top_k, 2);
  EXPECT_TRUE(defaults.noise.options.has_value());
  EXPECT_EQ(read("moe: {router: {top_k: 5}}").moe->router.options.as<TopK>().top_k, 5);
  Moe moe{.router = {.type = "topk", .options = TopK{.top_k = 7}}};
  Problems problems;
  const Tables t = tables();
  read_fields(declare(moe), &t, parse_yaml("a", "router: {norm_topk_prob: false}"), "", problems);
  EXPECT_EQ(moe.router.options.as<TopK>().top_k, 7);
  read_fields(declare(moe), &t, parse_yaml("a", "router: {type: topk}"), "", problems);
  EXPECT_EQ(moe.router.options.as<TopK>().top_k, 2);
  EXPECT_TRUE(problems.empty());
}

TEST(Plugins, none_is_an_ordinary_plugin_and_null_means_it) {
  EXPECT_EQ(read("moe: {noise: {type: jitter, weight: 0.5}}").moe->noise.options.as<Loss>().weight.at(0),
            0.5);
  EXPECT_EQ(read("moe: {noise: {type: none}}").moe->noise.type, "none");
  EXPECT_EQ(read("moe: {noise: null}").moe->noise.type, "none");
  expect_part(errors_of("moe: {router: null}"),
              "a.yaml:1:15: error: moe.router: null is not a value of this key");
  expect_part(errors_of("moe: {noise: {weight: 0.5}}"),
              "a.yaml:1:15: error: moe.noise: 'weight' is not a key of noise 'none'; it belongs to jitter\n");
}

TEST(Plugins, an_unknown_type_is_answered_with_the_nearest_and_all_known_names) {
  const std::string got = errors_of("moe:\n  router: {type: tpok}\n  aux_losses:\n    - {type: balance}\n");
  expect_part(got,
              "a.yaml:2:18: error: moe.router.type: unknown router 'tpok'\n    2 |   router: {type: tpok}\n"
              "      |                  ^~~~\n   did you mean 'topk'?  known: topk, soft\n");
  expect_part(got, "a.yaml:4:14: error: moe.aux_losses.0.type: unknown aux_loss 'balance'\n");
  expect_part(got, "\n   known: load_balancing, z_loss\n");
}

TEST(Plugins, a_key_of_another_plugin_is_sent_to_its_owner) {
  const std::string got = errors_of("moe:\n  router: {type: soft, top_k: 2, slots: 3}\n");
  expect_part(got,
              "a.yaml:2:24: error: moe.router: 'top_k' is not a key of router 'soft'; it belongs to topk\n");
  expect_part(got, "\n   remove it, or write 'type: topk'\n");
  expect_part(got, "a.yaml:2:34: error: unknown key 'slots' in moe.router\n");
  expect_part(errors_of("moe: {router: {type: soft, moe_router_topk: 2}}"), "it belongs to topk\n");
}

TEST(Plugins, what_is_no_section_with_a_type_is_refused) {
  expect_part(errors_of("moe: {router: soft}"),
              "a.yaml:1:15: error: moe.router: expected a section with a type, got 'soft'\n");
  expect_part(errors_of("moe: {router: soft}"), "\n   write {type: soft}\n");
  expect_part(errors_of("moe: {router: {type: [soft]}}"),
              "a.yaml:1:22: error: moe.router.type: expected the name of a router, got a list\n");
  expect_part(errors_of("moe: {router: {type: null}}"),
              "a.yaml:1:22: error: moe.router.type: expected the name of a router, got null\n");
  expect_part(errors_of("moe: {aux_losses: {type: z_loss}}"),
              "a.yaml:1:19: error: moe.aux_losses: expected a list of aux_losses, got a section with keys\n");
  expect_part(errors_of("moe: {aux_losses: [{weight: 1}]}"),
              "a.yaml:1:20: error: moe.aux_losses.0.type is missing\n");
  expect_part(errors_of("moe: {aux_losses: [{weight: 1}]}"),
              "\n   write {type: NAME, ...} with one of: load_balancing, z_loss\n");
}

TEST(Plugins, options_are_checked_with_their_full_path) {
  expect_part(errors_of("moe: {aux_losses: [{type: z_loss}, {type: z_loss, weight: -1}]}"),
              "a.yaml:1:59: error: moe.aux_losses.1.weight: -1 is out of range (>= 0)");
}

TEST(Plugins, a_table_that_the_program_did_not_pass_is_an_error_of_the_program) {
  Moe moe;
  Problems problems;
  EXPECT_THROW(read_fields(declare(moe), nullptr, parse_yaml("a", "router: {type: topk}"), "", problems),
               conclave::Error);
}

TEST(Plugins, a_plugin_that_a_program_adds_is_read_like_any_other) {
  struct Mine {
    double sharpness = 3.5;
    void fields(Fields& f) { f("sharpness", sharpness, "Mine."); }
  };
  Tables t = tables();
  t["routers"].push_back({"mine", "Own.", [] { return Mine{}; }});
  Moe moe;
  Problems problems;
  read_fields(declare(moe), &t, parse_yaml("a", "router: {type: mine, sharpness: 4.5}"), "", problems);
  ASSERT_TRUE(problems.empty()) << problems.render();
  EXPECT_EQ(moe.router.options.as<Mine>().sharpness, 4.5);
  EXPECT_THROW(moe.router.options.as<TopK>(), std::bad_any_cast);
}

}  // namespace
