// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/sampler.h"

#include <cmath>
#include <set>

#include "data/helpers.h"

namespace conclave::data {
namespace {

TEST(Permutation, IsABijectionForEverySize) {
  for (uint64_t size = 1; size <= 300; ++size) {
    const Permutation order(size, 12345 + size);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < size; ++i) seen.insert(order(i));
    ASSERT_EQ(seen.size(), size);
    ASSERT_LT(*seen.rbegin(), size);
  }
}

TEST(Permutation, IsABijectionOfALargeOddSize) {
  const uint64_t size = 100003;
  const Permutation order(size, 7);
  std::vector<bool> seen(size, false);
  for (uint64_t i = 0; i < size; ++i) seen[order(i)] = true;
  EXPECT_EQ(std::count(seen.begin(), seen.end(), false), 0);
}

TEST(Permutation, LooksRandom) {
  // Correlation of place and value, and fixed points, over many keys: about 0 and about 1.
  const uint64_t size = 997;
  double correlation = 0, fixed_points = 0;
  const int keys = 200;
  for (int key = 0; key < keys; ++key) {
    const Permutation order(size, static_cast<uint64_t>(key));
    double sum = 0;
    for (uint64_t i = 0; i < size; ++i) {
      sum += (static_cast<double>(i) - 498.0) * (static_cast<double>(order(i)) - 498.0);
      fixed_points += order(i) == i ? 1 : 0;
    }
    correlation += sum / (static_cast<double>(size * (size * size - 1)) / 12.0);
  }
  EXPECT_LT(std::abs(correlation / keys), 0.01);
  EXPECT_NEAR(fixed_points / keys, 1.0, 0.3);
}

TEST(Permutation, DependsOnItsKey) {
  const Permutation a(1009, 1), b(1009, 2);
  int equal = 0;
  for (uint64_t i = 0; i < 1009; ++i) equal += a(i) == b(i) ? 1 : 0;
  EXPECT_LT(equal, 12);
  expect_contains(error_of([&] { a(1009); }), {"1009"});
}

TEST(Sampler, EachEpochTakesEveryWindowOnceInANewOrder) {
  Sampler sampler({{.num_windows = 37}}, 5, true);
  std::vector<int64_t> first, second;
  for (int i = 0; i < 74; ++i) {
    const auto sample = sampler.next();
    EXPECT_EQ(sample.index, i);
    EXPECT_EQ(sample.epoch, i / 37);
    (i < 37 ? first : second).push_back(sample.window);
  }
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 37u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 37u);
}

TEST(Sampler, WithoutShuffleTheOrderIsThatOfTheFiles) {
  Sampler sampler({{.num_windows = 5}}, 5, false);
  for (int i = 0; i < 12; ++i) EXPECT_EQ(sampler.next().window, i % 5);
}

TEST(Sampler, BlendsByTheGreatestLackOfSamples) {
  const std::vector<double> weights = {0.5, 0.3, 0.2};
  Sampler sampler(
      {{.num_windows = 1000, .weight = 5}, {.num_windows = 7, .weight = 3}, {.num_windows = 90, .weight = 2}},
      1, true);
  std::vector<int64_t> counts(3, 0);
  for (int i = 0; i < 4001; ++i) {
    size_t wanted = 0;
    double best = -1e30;
    for (size_t s = 0; s < 3; ++s) {
      const double lack = weights[s] * std::max(i, 1) - static_cast<double>(counts[s]);
      if (lack > best) best = lack, wanted = s;
    }
    ASSERT_EQ(sampler.next().source, static_cast<int32_t>(wanted)) << i;
    ++counts[wanted];
  }
  for (size_t s = 0; s < 3; ++s) EXPECT_NEAR(static_cast<double>(counts[s]), weights[s] * 4001, 2.0);
}

TEST(Sampler, ResumesAtAnyPointAndSkipsAlike) {
  const std::vector<SamplerSource> sources = {{.num_windows = 11, .weight = 0.7},
                                              {.num_windows = 23, .weight = 0.3}};
  Sampler whole(sources, 99, true);
  std::vector<SampleRef> all;
  for (int i = 0; i < 100; ++i) all.push_back(whole.next());
  for (int stop = 0; stop < 100; stop += 3) {
    Sampler first(sources, 99, true), second(sources, 99, true);
    first.skip(stop);
    second.restore(first.state());
    const auto sample = second.next();
    EXPECT_EQ(sample.index, all[static_cast<size_t>(stop)].index);
    EXPECT_EQ(sample.source, all[static_cast<size_t>(stop)].source);
    EXPECT_EQ(sample.window, all[static_cast<size_t>(stop)].window);
  }
}

TEST(Sampler, RefusesAStateOfOtherSources) {
  Sampler sampler({{.num_windows = 5}}, 1, true);
  expect_contains(error_of([&] {
                    sampler.restore({.consumed_samples = 3, .counts = {1, 2}});
                  }),
                  {"2 sources", "lists 1"});
  expect_contains(error_of([&] { sampler.restore({.consumed_samples = 3, .counts = {2}}); }),
                  {"inconsistent"});
  expect_contains(error_of([&] { sampler.restore({.consumed_samples = -1, .counts = {-1}}); }),
                  {"inconsistent"});
  expect_contains(error_of([] { Sampler({{.num_windows = 0}}, 1, true); }), {"without a window"});
}

}  // namespace
}  // namespace conclave::data
