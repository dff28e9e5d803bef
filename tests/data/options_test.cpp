// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/options.h"

#include "conclave/config/load.h"
#include "data/helpers.h"

namespace conclave::data {
namespace {

DataOptions read(const std::string& yaml, std::string* problems = nullptr) {
  DataOptions options;
  config::Problems found;
  config::read_fields([&](config::Fields& f) { options.fields(f); }, nullptr,
                      config::parse_yaml("data.yaml", yaml), "", found);
  if (problems)
    *problems = found.empty() ? "" : found.render();
  else
    found.throw_if_any();
  return options;
}

std::string problems_of(const std::string& yaml) {
  std::string problems;
  read(yaml, &problems);
  EXPECT_FALSE(problems.empty()) << yaml;
  return problems;
}

TEST(DataOptions, AreReadFromYaml) {
  const auto options = read(
      "seq_length: 128\npacking: none\nshuffle: false\ntrain:\n  - {corpus: domains4, weight: 2}\n"
      "  - {path: a/*.jsonl, text_field: body, label_field: lang}\n  - {path: b.txt, document_separator: "
      "\"\\n\\n\"}\n"
      "valid: {fraction: 0.1}\n");
  EXPECT_EQ(options.seq_length, 128);
  EXPECT_EQ(options.packing, Packing::kNone);
  EXPECT_FALSE(options.shuffle);
  ASSERT_EQ(options.train.size(), 3u);
  EXPECT_EQ(options.train[0].corpus, "domains4");
  EXPECT_EQ(options.train[0].weight, 2.0);
  EXPECT_EQ(options.train[1].label_field, "lang");
  EXPECT_EQ(options.train[2].document_separator, "\n\n");
  EXPECT_EQ(options.valid.fraction, 0.1);
  EXPECT_EQ(read("train: [{path: a}]\nvalid: {sources: [{path: b}]}\n").valid.sources.at(0).path, "b");
}

TEST(DataOptions, ContradictionsAreRefused) {
  expect_contains(problems_of("train: [{corpus: domains4, path: a}]\n"),
                  {"data.yaml:1", "both corpus and path"});
  expect_contains(problems_of("train: [{weight: 1}]\n"), {"neither corpus nor path"});
  expect_contains(problems_of("train: []\n"), {"no source"});
  expect_contains(problems_of("seq_length: 5\n"), {"train"});
  expect_contains(problems_of("train: [{corpus: domains4, text_field: t}]\n"),
                  {"text_field", "path is not set"});
  expect_contains(problems_of("train: [{path: a}]\nvalid: {fraction: 0.1, sources: [{path: b}]}\n"),
                  {"fraction"});
  expect_contains(problems_of("train: [{path: a, weight: 0}]\n"), {"weight"});
  expect_contains(problems_of("train: [{path: a}]\npacking: best_fit\n"), {"best_fit", "concat"});
  expect_contains(problems_of("train: [{path: a, document_separator: \"\"}]\n"),
                  {"document_separator is empty"});
}

}  // namespace
}  // namespace conclave::data
