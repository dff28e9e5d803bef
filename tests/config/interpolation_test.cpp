// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include <fmt/format.h>

#include "config/folder.h"

using namespace config_sample;

namespace {

// Sets a variable for the length of a test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

TEST(References, take_the_environment_or_their_default) {
  const Variable set("CONCLAVE_TEST_DIR", "/data/x");
  unsetenv("CONCLAVE_TEST_NONE");
  EXPECT_EQ(loaded("a: ${env:CONCLAVE_TEST_DIR}/b\nb: ${env:CONCLAVE_TEST_NONE,/else}\nc: "
                   "${env:CONCLAVE_TEST_DIR,/else}\n"),
            "a: /data/x/b\nb: /else\nc: /data/x\n");
}

TEST(References, a_plain_result_is_typed_and_a_quoted_one_stays_a_string) {
  const Variable number("CONCLAVE_TEST_NUMBER", "5");
  const Variable null("CONCLAVE_TEST_NULL", "null");
  EXPECT_EQ(
      loaded(
          "a: ${env:CONCLAVE_TEST_NUMBER}\nb: \"${env:CONCLAVE_TEST_NUMBER}\"\nc: ${env:CONCLAVE_TEST_NULL}\n"
          "d: ${env:CONCLAVE_TEST_NONE,}\ne: '5'\nf: ${e}\n"),
      "a: 5\nb: \"5\"\nc: null\nd: null\ne: \"5\"\nf: \"5\"\n");
}

TEST(References, name_other_scalars_of_the_tree_also_through_lists_and_overrides) {
  EXPECT_EQ(loaded("run: {name: x, dir: \"runs/${run.name}\"}\nlog: ${run.dir}/log-${list.1}\nlist: [p, q]\n",
                   {"run.name=y"}),
            "run:\n  name: y\n  dir: runs/y\nlog: runs/y/log-q\nlist: [p, q]\n");
}

TEST(References, fall_back_to_defaults_where_the_file_is_silent) {
  const Node defaults = parse_yaml("d", "run: {name: quick, dir: \"runs/${run.name}\"}\n");
  EXPECT_EQ(loaded("log: ${run.dir}/log\n", {}, &defaults), "log: runs/quick/log\n");
  EXPECT_EQ(loaded("log: ${run.dir}/log\nrun: {name: mine}\n", {}, &defaults),
            "log: runs/mine/log\nrun:\n  name: mine\n");
}

TEST(References, text_from_the_environment_that_would_be_a_reference_in_the_frozen_copy_is_refused) {
  const Variable set("CONCLAVE_TEST_DIR", "x${a}");
  expect_part(loaded("a: 1\nb: ${env:CONCLAVE_TEST_DIR}\n"),
              "a.yaml:2:4: error: environment variable CONCLAVE_TEST_DIR contains '${'\n");
}

TEST(References, circles_are_errors) {
  expect_part(loaded("a: ${b}\nb: x${c}\nc: ${a}\n"),
              "a.yaml:3:4: error: '${a}' leads in a circle back to itself\n");
  expect_part(loaded("a: ${a}\n"), "a.yaml:1:4: error: '${a}' leads in a circle back to itself\n");
  const std::string got = loaded("a: ${b}\nb: ${a}\n");
  expect_part(got, "\n1 error;");
}

TEST(References, text_that_grows_without_measure_is_refused) {
  std::string yaml = fmt::format("k0: {}\n", std::string(100, 'x'));
  for (int i = 1; i < 40; ++i) {
    const std::string below = fmt::format("${{k{}}}", i - 1);
    yaml += fmt::format("k{}: {}{}\n", i, below, below);
  }
  expect_part(loaded(yaml), "a.yaml:11:6: error: references make this text longer than 65536 bytes\n");
}

TEST(References, what_cannot_be_resolved_is_told_at_its_place) {
  const std::pair<const char*, const char*> cases[] = {
      {"a: x\nb: ${nothing.here}\n",
       "a.yaml:2:4: error: '${nothing.here}' names no plain value of this configuration\n"},
      {"a: {b: 1}\nc: ${a}\n", "a.yaml:2:4: error: '${a}' names no plain value of this configuration\n"},
      {"a: null\nc: ${a}\n", "a.yaml:2:4: error: '${a}' names no plain value of this configuration\n"},
      {"a: ${b\n", "a.yaml:1:4: error: '${' without '}'\n"},
      {"a: ${}\n", "a.yaml:1:4: error: '${}' names no plain value of this configuration\n"},
      {"a: ${env:CONCLAVE_TEST_NONE}\n",
       "a.yaml:1:4: error: environment variable CONCLAVE_TEST_NONE is not set\n"},
      {"a: ${env:CONCLAVE_TEST_NONE}\n",
       "\n   set it, or give a default: ${env:CONCLAVE_TEST_NONE,default}\n"},
      {"a: ${env:HF_TOKEN,x}\n", "a.yaml:1:4: error: environment variable HF_TOKEN looks like a secret"},
      {"a: ${env:MY_S3_ACCESS_KEY}\n", "environment variable MY_S3_ACCESS_KEY looks like a secret"},
  };
  for (const auto& [yaml, part] : cases) expect_part(loaded(yaml), part);
  EXPECT_EQ(loaded("a: ${env:TRAIN_TOKENS,4M}\nb: ${env:BETOKEN,x}\n"), "a: 4M\nb: x\n");
  const Variable broken("CONCLAVE_TEST_BROKEN", "\xff");
  expect_part(loaded("a: ${env:CONCLAVE_TEST_BROKEN}\n"),
              "environment variable CONCLAVE_TEST_BROKEN is not valid UTF-8");
}

TEST(References, a_default_dump_can_be_resolved_by_its_owner) {
  Node tree = parse_yaml("d", "run: {name: quick, dir: \"runs/${run.name}\"}\n");
  Problems problems;
  interpolate(tree, nullptr, problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(emit_yaml(tree), "run:\n  name: quick\n  dir: runs/quick\n");
}

}  // namespace
