// SPDX-License-Identifier: Apache-2.0
#include <map>

#include <nlohmann/json.hpp>

#include "conclave/core/files.h"
#include "conclave/data/corpus.h"
#include "conclave/data/evaluation.h"
#include "conclave/data/statistics.h"
#include "data/helpers.h"

namespace conclave::data {
namespace {

struct Figures {
  int64_t train_documents, valid_documents, train_bytes, valid_bytes;
  ByteEntropies entropies;
};

// Of the package versions that the corpus knows; counted once by another program on the same packages.
const std::map<std::string, Figures> kKnown = {
    {"prose", {1345, 56, 4751599, 196863, {4.451, 3.349, 2.559}}},
    {"gloss", {1772, 89, 10943170, 549561, {4.506, 3.677, 3.082}}},
    {"techdoc", {1078, 62, 6015250, 541624, {4.825, 3.764, 2.808}}},
    {"code", {396, 16, 7937122, 264188, {4.535, 3.486, 2.525}}},
};
// The other program laid out a few table rows of the manual differently.
constexpr int64_t kTechdocSlackBytes = 32;

void expect_entropies(const ByteEntropies& found, const ByteEntropies& wanted) {
  EXPECT_NEAR(found.unigram, wanted.unigram, 0.0006);
  EXPECT_NEAR(found.bigram, wanted.bigram, 0.00051);
  EXPECT_NEAR(found.trigram, wanted.trigram, 0.00051);
}

TEST(Domains4, IsBuiltFromPackagesAndHasTheKnownFigures) {
  const TestFolder folder;
  LogLines log;
  Dataset dataset;
  try {
    dataset = open_dataset({.train = {{.corpus = "domains4"}}}, byte_tokenizer(), log.log());
  } catch (const Error& error) {
    if (std::string(error.what()).find("cannot download") == std::string::npos) throw;
    GTEST_SKIP() << "the packages cannot be fetched here: " << error.what();
  }
  EXPECT_FALSE(log.mention("please report"));  // a known package version gave another checksum
  if (log.mention("reference figures")) GTEST_SKIP() << "other package versions: " << log.lines.back();

  EXPECT_EQ(dataset.domain_names, (std::vector<std::string>{"code", "gloss", "prose", "techdoc"}));
  const auto statistics = describe(dataset);
  for (const auto& domain : statistics.domains) {
    SCOPED_TRACE(domain.name);
    const Figures& known = kKnown.at(domain.name);
    const int64_t slack = domain.name == "techdoc" ? kTechdocSlackBytes : 0;
    EXPECT_EQ(domain.documents, known.train_documents);
    EXPECT_EQ(domain.held_out_documents, known.valid_documents);
    EXPECT_NEAR(static_cast<double>(domain.bytes), static_cast<double>(known.train_bytes),
                static_cast<double>(slack));
    EXPECT_NEAR(static_cast<double>(domain.held_out_bytes), static_cast<double>(known.valid_bytes),
                static_cast<double>(slack));
    EXPECT_EQ(domain.duplicate_documents, 0);
    expect_entropies(domain.entropies, known.entropies);
  }
  expect_entropies(statistics.all.entropies, {4.670, 3.829, 3.018});

  const EvaluationSet sample(dataset, {.micro_batch_size = 8, .max_tokens = 4 * 32768});
  EXPECT_EQ(sample.num_rows(), 4 * 128);
  const auto manifest = nlohmann::json::parse(read_file(corpora_directory() / "domains4-v1/manifest.json"));
  ASSERT_EQ(manifest["domains"].size(), 4u);
  for (const auto& domain : manifest["domains"]) EXPECT_FALSE(domain["packages"].empty());
}

}  // namespace
}  // namespace conclave::data
