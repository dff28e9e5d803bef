// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/dataset.h"

#include <cmath>
#include <set>

#include "data/helpers.h"

namespace conclave::data {
namespace {

std::set<uint64_t> contents(const std::vector<DatasetSource>& sources) {
  std::set<uint64_t> hashes;
  for (const auto& source : sources) {
    for (int64_t i = 0; i < source.documents.size(); ++i) hashes.insert(source.documents.content_hash(i));
  }
  return hashes;
}

int64_t num_documents(const std::vector<DatasetSource>& sources) {
  int64_t sum = 0;
  for (const auto& source : sources) sum += source.documents.size();
  return sum;
}

Dataset open(const std::vector<SourceOptions>& train, const ValidOptions& valid, const Log& log = Log()) {
  return open_dataset({.seq_length = 9, .train = train, .valid = valid}, byte_tokenizer(), log);
}

void expect_disjoint(const Dataset& dataset) {
  const auto train = contents(dataset.train), valid = contents(dataset.valid);
  for (const uint64_t hash : valid) EXPECT_FALSE(train.contains(hash));
}

TEST(Split, HoldsOutAboutTheFractionAndNothingTwice) {
  const TestFolder folder;
  const auto path = folder.write("a.jsonl", toy_jsonl(2000));
  for (const double fraction : {0.05, 0.13, 0.5}) {
    const auto dataset = open({file_source(path)}, {.fraction = fraction});
    EXPECT_EQ(num_documents(dataset.train) + num_documents(dataset.valid), 2000);
    EXPECT_NEAR(static_cast<double>(num_documents(dataset.valid)) / 2000, fraction,
                4 * std::sqrt(fraction * (1 - fraction) / 2000));
    expect_disjoint(dataset);
  }
}

TEST(Split, AWholeNumberOfPartsIsARemainder) {
  EXPECT_TRUE(is_held_out(40, 0.05));
  EXPECT_FALSE(is_held_out(41, 0.05));
  EXPECT_TRUE(is_held_out(30, 0.1));
  EXPECT_FALSE(is_held_out(30, 0.0));
}

TEST(Split, CopiesOfADocumentAreOnOneSide) {
  const TestFolder folder;
  const auto once = folder.write("a.jsonl", toy_jsonl(300));
  const auto again = folder.write("b.jsonl", toy_jsonl(400));  // the first 300 are copies
  const auto dataset = open({file_source(once), file_source(again)}, {.fraction = 0.2});
  EXPECT_EQ(num_documents(dataset.train) + num_documents(dataset.valid), 700);
  expect_disjoint(dataset);
}

TEST(Split, ADocumentKeepsItsSideWhenOthersCome) {
  const TestFolder folder;
  const auto small = open({file_source(folder.write("s.jsonl", toy_jsonl(200)))}, {.fraction = 0.1});
  const auto large = open({file_source(folder.write("l.jsonl", toy_jsonl(900)))}, {.fraction = 0.1});
  const auto in_small = contents(small.valid), in_large = contents(large.valid);
  for (const uint64_t hash : in_small) EXPECT_TRUE(in_large.contains(hash));
}

TEST(Split, SmallSetsStillHaveBothSides) {
  const TestFolder folder;
  for (int n = 2; n < 9; ++n) {
    const auto dataset = open({file_source(folder.write("a.jsonl", toy_jsonl(n)))}, {.fraction = 0.05});
    EXPECT_GE(num_documents(dataset.train), 1) << n;
    EXPECT_GE(num_documents(dataset.valid), 1) << n;
  }
  const auto one = folder.write("one.txt", "a single document");
  expect_contains(error_of([&] { open({{.path = one.string()}}, {.fraction = 0.05}); }),
                  {"single document", "fraction=0", "document_separator"});
  EXPECT_TRUE(open({{.path = one.string()}}, {.fraction = 0}).valid.empty());
}

TEST(ValidSources, ReplaceTheFractionAndAreTakenOutOfTraining) {
  const TestFolder folder;
  LogLines log;
  const auto train = folder.write("train.jsonl", toy_jsonl(50));
  const auto valid = folder.write("valid.jsonl", toy_jsonl(5) + toy_jsonl(7, "new "));
  const auto dataset = open({file_source(train)}, {.sources = {file_source(valid)}}, log.log());
  EXPECT_EQ(num_documents(dataset.train), 45);
  EXPECT_EQ(num_documents(dataset.valid), 12);
  expect_disjoint(dataset);
  EXPECT_TRUE(log.mention("5 training documents are also held out"));
  expect_contains(error_of([&] { open({file_source(train)}, {.sources = {file_source(train)}}); }),
                  {"every document", "'train'", "validation"});
}

TEST(Domains, ComeFromLabelsOrFromTheSourceAndAreShared) {
  const TestFolder folder;
  const auto labelled = folder.write("labelled.jsonl", toy_jsonl(60));
  const auto plain = folder.write("novel.v2.jsonl", toy_jsonl(40, "n "));
  const auto dataset = open({{.path = plain.string()}, file_source(labelled)}, {.fraction = 0.25});
  EXPECT_EQ(dataset.domain_names, (std::vector<std::string>{"novel", "t0", "t1", "t2"}));
  EXPECT_EQ(dataset.train[0].documents.domain(0), 0);
  EXPECT_GE(dataset.train[1].documents.domain(0), 1);
}

TEST(Fingerprint, ChangesWithTheWindowsOnly) {
  const TestFolder folder;
  const auto path = folder.write("a.jsonl", toy_jsonl(100));
  const auto base = open({file_source(path)}, {.fraction = 0.1}).fingerprint;
  EXPECT_EQ(open({file_source(path, 3.0)}, {.fraction = 0.1}).fingerprint, base);
  EXPECT_NE(open({file_source(path)}, {.fraction = 0.2}).fingerprint, base);
  folder.write("a.jsonl", toy_jsonl(101));
  EXPECT_NE(open({file_source(path)}, {.fraction = 0.1}).fingerprint, base);
}

TEST(Options, AnUnknownCorpusListsTheKnownOnes) {
  const TestFolder folder;
  expect_contains(error_of([] { open({{.corpus = "domains5"}}, {}); }), {"'domains5'", "domains4"});
}

}  // namespace
}  // namespace conclave::data
