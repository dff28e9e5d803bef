// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/batch_stream.h"

#include <numeric>

#include "data/helpers.h"

namespace conclave::data {
namespace {

constexpr int64_t kLength = 13;

Dataset blended(const TestFolder& folder, Packing packing = Packing::kConcat) {
  DataOptions options = {.seq_length = kLength, .packing = packing};
  options.train = {file_source(folder.write("a.jsonl", toy_jsonl(30)), 0.7),
                   file_source(folder.write("b.jsonl", toy_jsonl(9, "other ")), 0.3)};
  options.valid.fraction = 0.2;
  return open_dataset(options, byte_tokenizer(), Log());
}

// Sample numbers and tokens of a batch, row by row.
struct Row {
  int64_t sample;
  std::vector<int32_t> token, target;
  bool operator==(const Row&) const = default;
};

void append_rows(const Batch& batch, std::vector<Row>& rows) {
  for (int64_t r = 0; r < batch.num_sequences; ++r) {
    const auto part = [&](const std::vector<int32_t>& values) {
      return std::vector<int32_t>(values.begin() + r * kLength, values.begin() + (r + 1) * kLength);
    };
    const int64_t first = batch.global_id[static_cast<size_t>(r * kLength)];
    ASSERT_EQ(first % kLength, 0);
    for (int64_t c = 0; c < kLength; ++c)
      ASSERT_EQ(batch.global_id[static_cast<size_t>(r * kLength + c)], first + c);
    rows.push_back({first / kLength, part(batch.token), part(batch.target)});
  }
}

// The first `samples` samples of the run, read by `num_ranks` ranks in turn.
std::vector<Row> read_stream(const Dataset& dataset, int64_t num_ranks, int64_t micro_batch_size,
                             int64_t samples, int64_t num_workers, const SamplerState* from = nullptr) {
  std::vector<BatchStream> ranks;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    ranks.emplace_back(dataset, StreamOptions{.seed = 17,
                                              .micro_batch_size = micro_batch_size,
                                              .rank = rank,
                                              .num_ranks = num_ranks,
                                              .num_workers = num_workers});
    if (from) ranks.back().restore(*from);
  }
  std::vector<Row> rows;
  while (static_cast<int64_t>(rows.size()) < samples) {
    for (auto& rank : ranks) append_rows(rank.next(), rows);
  }
  return rows;
}

TEST(BatchStream, TheOrderDoesNotDependOnRanksMicroBatchesOrWorkers) {
  const TestFolder folder;
  for (const auto packing : {Packing::kConcat, Packing::kNone}) {
    const auto dataset = blended(folder, packing);
    const auto wanted = read_stream(dataset, 1, 1, 240, 0);
    for (size_t i = 0; i < wanted.size(); ++i) ASSERT_EQ(wanted[i].sample, static_cast<int64_t>(i));
    for (const int64_t ranks : {1, 2, 4}) {
      for (const int64_t micro : {1, 3, 5}) {
        EXPECT_TRUE(read_stream(dataset, ranks, micro, 240, 1) == wanted)
            << ranks << " ranks, micro batch " << micro;
      }
    }
    EXPECT_FALSE(read_stream(dataset, 1, 1, 240, 0)[0] == wanted[1]);
  }
}

TEST(BatchStream, ResumesAtEveryStepWithAnotherNumberOfRanks) {
  const TestFolder folder;
  const auto dataset = blended(folder);
  const auto whole = read_stream(dataset, 1, 1, 120, 0);
  for (int64_t steps = 0; steps <= 5; ++steps) {  // 12 samples a step
    BatchStream first(dataset, {.seed = 17, .micro_batch_size = 3, .rank = 1, .num_ranks = 2});
    for (int64_t i = 0; i < 2 * steps; ++i) first.next();
    const auto state = first.state();
    EXPECT_EQ(state.consumed_samples, 12 * steps);
    const std::vector<Row> rest(whole.begin() + 12 * steps, whole.begin() + 12 * steps + 24);
    EXPECT_TRUE(read_stream(dataset, 4, 3, 24, 1, &state) == rest) << steps;
    EXPECT_TRUE(read_stream(dataset, 1, 2, 24, 0, &state) == rest) << steps;
  }
}

TEST(BatchStream, RestoreGoesBackInARunningStream) {
  const TestFolder folder;
  BatchStream stream(blended(folder), {.seed = 4, .micro_batch_size = 5});
  const auto start = stream.state();
  const Batch first = stream.next();
  stream.next();
  stream.restore(start);
  const Batch again = stream.next();
  EXPECT_EQ(again.token, first.token);
  EXPECT_EQ(again.global_id, first.global_id);
}

TEST(BatchStream, TotalsAreThoseOfTheBatches) {
  const TestFolder folder;
  for (const auto packing : {Packing::kConcat, Packing::kNone}) {
    BatchStream stream(blended(folder, packing), {.seed = 3, .micro_batch_size = 4});
    for (int step = 0; step < 7; ++step) {
      const SampleTotals totals = stream.totals(12);
      int64_t tokens = 0, targets = 0, bytes = 0;
      for (int micro = 0; micro < 3; ++micro) {
        const Batch batch = stream.next();
        tokens += batch.num_tokens;
        targets += batch.num_targets;
        bytes += batch.num_target_bytes;
      }
      EXPECT_EQ(totals.num_tokens, tokens);
      EXPECT_EQ(totals.num_targets, targets);
      EXPECT_EQ(totals.num_sequences, 12);
      EXPECT_LT(bytes, targets);
      EXPECT_GT(bytes, 0);
    }
  }
}

TEST(BatchStream, AnEpochHoldsEveryTokenOnce) {
  const TestFolder folder;
  const auto dataset = toy_dataset(folder);
  BatchStream stream(dataset, {.seed = 8, .micro_batch_size = 1});
  int64_t tokens = 0;
  for (int64_t i = 0; i < stream.num_windows(); ++i) tokens += stream.next().num_tokens;
  EXPECT_EQ(tokens, dataset.train[0].documents.num_tokens());
}

TEST(BatchStream, RefusesTheStateOfOtherData) {
  const TestFolder folder;
  BatchStream one(toy_dataset(folder, 41), {.micro_batch_size = 2});
  BatchStream other(toy_dataset(folder, 43), {.micro_batch_size = 2});
  one.next();
  expect_contains(error_of([&] { other.restore(one.state()); }), {"other data", "weights only"});
  EXPECT_EQ(other.state().consumed_samples, 0);
  auto state = one.state();
  state.fingerprint.clear();  // the caller takes the responsibility
  other.restore(state);
  EXPECT_EQ(other.state().consumed_samples, 2);
}

class FailingPacker : public Packer {
 public:
  int64_t num_windows() const override { return 9; }
  int64_t num_tokens(int64_t) const override { return kLength; }
  void fill(int64_t window, int64_t, Batch&) const override {
    if (window == 4) throw Error("the fifth window cannot be read");
  }
};

TEST(BatchStream, AnErrorInTheWorkerReachesTheCaller) {
  for (const int64_t workers : {0, 1}) {
    BatchStream stream({{.packer = std::make_shared<FailingPacker>()}}, byte_tokenizer(), kLength,
                       {.micro_batch_size = 2, .shuffle = false, .num_workers = workers});
    stream.next();
    stream.next();
    for (int again = 0; again < 2; ++again) {
      EXPECT_EQ(error_of([&] { stream.next(); }), "the fifth window cannot be read");
    }
    EXPECT_EQ(stream.state().consumed_samples, 4);
  }
}

TEST(BatchStream, TakesShuffleAndWorkersFromTheDataset) {
  const TestFolder folder;
  auto dataset = toy_dataset(folder);
  dataset.options.shuffle = false;
  BatchStream stream(dataset, {.seed = 3});
  const auto packer = make_packer(Packing::kConcat, dataset.train[0].documents, kLength, 256);
  for (int64_t w = 0; w < 5; ++w) {
    Batch row = empty_batch(1, kLength);
    packer->fill(w, 0, row);
    EXPECT_EQ(stream.next().token, row.token);
  }
  dataset.options.num_workers = 7;
  expect_contains(error_of([&] { BatchStream(dataset, {}); }), {"num_workers is 7"});
}

TEST(BatchStream, EndsWhileItsWorkerIsBusy) {
  const TestFolder folder;
  const auto dataset = toy_dataset(folder);
  for (int i = 0; i < 50; ++i) {
    BatchStream stream(dataset, {.micro_batch_size = 3});
    if (i % 2 == 0) stream.next();
    BatchStream moved = std::move(stream);
    moved.next();
  }
}

TEST(BatchStream, RefusesImpossibleOptions) {
  const TestFolder folder;
  const auto dataset = toy_dataset(folder);
  expect_contains(error_of([&] { BatchStream(dataset, {.micro_batch_size = 0}); }),
                  {"micro_batch_size is 0"});
  expect_contains(error_of([&] { BatchStream(dataset, {.rank = 2, .num_ranks = 2}); }), {"rank 2 of 2"});
  expect_contains(error_of([&] { BatchStream(dataset, {.num_workers = 2}); }), {"num_workers is 2"});
}

}  // namespace
}  // namespace conclave::data
