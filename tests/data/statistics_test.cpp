// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/statistics.h"

#include <cmath>
#include <map>

#include "data/helpers.h"

namespace conclave::data {
namespace {

// By definition: the mean of -log2 of the share that a byte has after its context.
double plain_entropy(const std::vector<std::string>& documents, size_t order) {
  std::map<std::string, std::map<char, int>> counts;
  const auto contexts = [&](const auto& visit) {
    for (const auto& document : documents) {
      const std::string marked = std::string(order, '\x01') + document;
      for (size_t i = 0; i < document.size(); ++i) visit(marked.substr(i, order), document[i]);
    }
  };
  contexts([&](const std::string& context, char c) { ++counts[context][c]; });
  double sum = 0;
  int total = 0;
  contexts([&](const std::string& context, char c) {
    int all = 0;
    for (const auto& [byte, count] : counts[context]) all += count;
    sum -= std::log2(static_cast<double>(counts[context][c]) / all);
    ++total;
  });
  return sum / total;
}

TEST(ByteEntropies, EqualTheirDefinition) {
  const std::vector<std::string> documents = {"abracadabra", "a", "the cat sat on the mat",
                                              "\xFF\xFE\xFF\xFE\xFF", "barb"};
  TrigramCounter counter;
  for (const auto& document : documents) counter.add(document);
  const auto entropies = counter.entropies();
  EXPECT_NEAR(entropies.unigram, plain_entropy(documents, 0), 1e-12);
  EXPECT_NEAR(entropies.bigram, plain_entropy(documents, 1), 1e-12);
  EXPECT_NEAR(entropies.trigram, plain_entropy(documents, 2), 1e-12);
}

TEST(ByteEntropies, NoTextIsZero) {
  EXPECT_EQ(TrigramCounter().entropies().unigram, 0);
  TrigramCounter one;
  one.add("zzzzz");
  EXPECT_EQ(one.entropies().trigram, 0);
}

TEST(Describe, CountsDocumentsBytesCopiesAndRepeatedLines) {
  const TestFolder folder;
  const auto path =
      folder.write("a.jsonl",
                   "{\"text\":\"one\\ntwo\\n\\none\",\"topic\":\"u\"}\n{\"text\":\"three\",\"topic\":\"v\"}\n"
                   "{\"text\":\"three\",\"topic\":\"v\"}\n{\"text\":\"two\",\"topic\":\"v\"}\n");
  const auto dataset = open_dataset({.seq_length = 4, .train = {file_source(path)}, .valid = {.fraction = 0}},
                                    byte_tokenizer(), Log());
  const auto statistics = describe(dataset);
  EXPECT_EQ(statistics.all.documents, 4);
  EXPECT_EQ(statistics.all.bytes, 12 + 5 + 5 + 3);
  EXPECT_EQ(statistics.all.duplicate_documents, 1);
  EXPECT_EQ(statistics.all.lines, 6);
  EXPECT_EQ(statistics.all.repeated_lines, 3);
  ASSERT_EQ(statistics.domains.size(), 2u);
  EXPECT_EQ(statistics.domains[1].name, "v");
  EXPECT_EQ(statistics.domains[1].documents, 3);
  EXPECT_EQ(statistics.domains[1].repeated_lines, 1);
  expect_contains(format_statistics(statistics), {"domain", "all", "  50.0", "H(x|2)"});
}

}  // namespace
}  // namespace conclave::data
