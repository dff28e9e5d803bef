// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/evaluation.h"

#include <map>

#include "data/helpers.h"

namespace conclave::data {
namespace {

// (token, target) of each domain in order, read by all ranks.
std::map<int32_t, std::vector<std::pair<int32_t, int32_t>>> read_all(const Dataset& dataset,
                                                                     const EvaluationOptions& options) {
  std::map<int32_t, std::vector<std::pair<int32_t, int32_t>>> result;
  const int64_t batches = EvaluationSet(dataset, options).num_batches();
  for (int64_t index = 0; index < batches; ++index) {
    for (int64_t rank = 0; rank < options.num_ranks; ++rank) {
      EvaluationOptions own = options;
      own.rank = rank;
      const EvaluationSet set(dataset, own);
      EXPECT_EQ(set.num_batches(), batches);
      const Batch batch = set.batch(index);
      EXPECT_EQ(batch.num_sequences, options.micro_batch_size);
      for (size_t i = 0; i < batch.token.size(); ++i) {
        if (batch.document[i] >= 0) result[batch.domain[i]].push_back({batch.token[i], batch.target[i]});
      }
    }
  }
  return result;
}

std::map<int32_t, std::vector<std::pair<int32_t, int32_t>>> plain_loop(const Dataset& dataset) {
  std::map<int32_t, std::vector<std::pair<int32_t, int32_t>>> result;
  for (const auto& source : dataset.valid) {
    for (int64_t i = 0; i < source.documents.size(); ++i) {
      std::vector<int32_t> ids(static_cast<size_t>(source.documents.length(i)));
      source.documents.copy(i, 0, ids);
      for (size_t k = 0; k < ids.size(); ++k) {
        result[source.documents.domain(i)].push_back({ids[k], k + 1 < ids.size() ? ids[k + 1] : 256});
      }
    }
  }
  return result;
}

TEST(EvaluationSet, HoldsEveryHeldOutTokenOnceForAnyRanksAndBatchSizes) {
  const TestFolder folder;
  const auto dataset = toy_dataset(folder, 101);
  const auto wanted = plain_loop(dataset);
  ASSERT_EQ(wanted.size(), 3u);
  for (const int64_t ranks : {1, 2, 3}) {
    for (const int64_t micro : {1, 4, 7}) {
      EXPECT_EQ(read_all(dataset, {.micro_batch_size = micro, .num_ranks = ranks}), wanted)
          << ranks << " " << micro;
    }
  }
}

TEST(EvaluationSet, TheFixedSampleIsTheStartOfEachDomain) {
  const TestFolder folder;
  const auto dataset = toy_dataset(folder, 101);
  auto wanted = plain_loop(dataset);
  for (auto& [domain, pairs] : wanted) pairs.resize(std::min<size_t>(pairs.size(), 25));
  EXPECT_EQ(read_all(dataset, {.micro_batch_size = 2, .num_ranks = 2, .max_tokens = 77}), wanted);
  const EvaluationSet set(dataset, {.micro_batch_size = 2, .max_tokens = 77});
  EXPECT_EQ(set.num_tokens(), 75);
  EXPECT_EQ(set.num_rows(), 6);  // 13 + 12 tokens a domain
  EXPECT_EQ(read_all(dataset, {.micro_batch_size = 2, .max_tokens = 1000000}), plain_loop(dataset));
}

TEST(EvaluationSet, NothingHeldOutIsNoBatch) {
  const TestFolder folder;
  DataOptions options = {.seq_length = 5};
  options.train = {file_source(folder.write("a.jsonl", toy_jsonl(5)))};
  options.valid.fraction = 0;
  const auto dataset = open_dataset(options, byte_tokenizer(), Log());
  const EvaluationSet set(dataset, {.micro_batch_size = 3});
  EXPECT_EQ(set.num_batches(), 0);
  EXPECT_EQ(set.num_tokens(), 0);
  expect_contains(error_of([&] { set.batch(0); }), {"batch 0 of 0"});
}

}  // namespace
}  // namespace conclave::data
