// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "conclave/config/fields.h"
#include "conclave/config/load.h"
#include "conclave/config/scalars.h"
#include "conclave/core/error.h"

namespace {

using namespace conclave::config;

struct Inner {
  std::optional<Value> factor = {};
  int64_t min = 4;
  void fields(Fields& f) {
    f("factor", factor, "Factor.").positive();
    f("min", min, "Minimum.").min(0).only_if([this] { return factor.has_value(); }, "factor is null");
  }
};

struct Outer {
  int64_t steps = 100;
  double rate = 0.5;
  std::string name = "yes";
  Inner inner = {};
  void fields(Fields& f) {
    f("steps", steps, "Steps.").min(1).alias("num_steps");
    f("rate", rate, "Rate.").positive().less_than(1);
    f("name", name, "Name.");
    f("inner", inner, "Inner.");
  }
};

std::string errors_of(const std::string& yaml) {
  try {
    Outer outer;
    Problems problems;
    read_fields([&](Fields& f) { outer.fields(f); }, nullptr, parse_yaml("a.yaml", yaml), "", problems);
    return problems.empty() ? "" : problems.render();
  } catch (const conclave::ConfigError& error) {
    return error.what();
  }
}

void expect_error(const std::string& yaml, const std::string& part) {
  const std::string got = errors_of(yaml);
  EXPECT_NE(got.find(part), std::string::npos) << "wanted: " << part << "\ngot: " << got;
}

TEST(Config, misspelt_key_names_place_and_the_key_that_was_meant) {
  expect_error("rate: 0.1\nstps: 3\n", "a.yaml:2:1: error: unknown key 'stps'");
  expect_error("stps: 3\n", "did you mean 'steps'?");
}

TEST(Config, every_mistake_is_reported_at_once) {
  const std::string got = errors_of("steps: many\nrate: 2\ninner: {min: 3}\n");
  EXPECT_NE(got.find("expected a whole number, got many"), std::string::npos) << got;
  EXPECT_NE(got.find("rate: 2 is out of range"), std::string::npos) << got;
  EXPECT_NE(got.find("inner.min has no effect here: factor is null"), std::string::npos) << got;
  EXPECT_NE(got.find("3 errors"), std::string::npos) << got;
}

TEST(Config, yaml_that_other_readers_accept_silently_is_refused) {
  expect_error("steps: 1\nsteps: 2\n", "a.yaml:2:1: error: key 'steps' stands twice (first on line 1)");
  expect_error("steps: 1\n---\nsteps: 2\n", "2 YAML documents");
  expect_error("name: &x a\n", "anchors and aliases are not supported");
  expect_error("name: \xff\n", "byte 6 is not valid UTF-8");
  expect_error("[1, 2]\n", "the top of the file must be a map");
  expect_error("steps: {a: 1\n", "a.yaml");
  expect_error("steps: 1\nnum_steps: 2\n", "are the same key");
  expect_error("steps: null\n", "null is not a value of this key");
}

TEST(Config, numbers_take_units_and_refuse_the_rest) {
  EXPECT_EQ(parse_integer("4M"), 4000000);
  EXPECT_EQ(parse_integer("2GB"), 2000000000);
  EXPECT_EQ(parse_integer("64KiB"), 65536);
  EXPECT_EQ(parse_integer("1_000"), 1000);
  for (const char* bad : {"", "12abc", "1__0", "_1", "nan", "inf", "9999999999999999999", "1.5", "0x10"}) {
    EXPECT_FALSE(parse_integer(bad).has_value()) << bad;
  }
  EXPECT_EQ(parse_number("4e-4"), 4e-4);
  EXPECT_EQ(format_number(1e-8), "1.0e-08");
}

TEST(Config, dump_is_a_fixed_point) {
  Outer outer;
  outer.inner.factor =
      Value(Schedule{.kind = Schedule::Kind::kLinear, .from = 2.0, .to = 1.25, .end_step = 30});
  const auto text = emit_yaml(dump_fields([&](Fields& f) { outer.fields(f); }, nullptr, nullptr));
  Outer again;
  Problems problems;
  read_fields([&](Fields& f) { again.fields(f); }, nullptr, parse_yaml("dump", text), "", problems);
  EXPECT_TRUE(problems.empty()) << problems.render() << text;
  EXPECT_EQ(emit_yaml(dump_fields([&](Fields& f) { again.fields(f); }, nullptr, nullptr)), text);
  EXPECT_EQ(again.name, "yes");
  EXPECT_NEAR(again.inner.factor->at(15), 1.625, 1e-12);
}

}  // namespace
