// SPDX-License-Identifier: Apache-2.0
#include "routing.h"

#include <cmath>
#include <limits>

#include "device_array.h"

namespace conclave::kernels {
namespace {

class SelectTest : public DeviceTest {};

TEST_F(SelectTest, is_exact_with_ties_to_the_lowest_index_and_nan_never) {
  std::mt19937 engine(1);
  for (const int64_t experts : {1, 7, 32, 33, 128, 257, 1009}) {
    for (const int64_t rows : {0, 1, 37}) {
      const int64_t k = std::min<int64_t>(experts, 11);
      std::vector<float> scores(static_cast<size_t>(rows * experts));
      const float special[] = {NAN, -NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-45f, 3.0f};
      for (auto& score : scores) {
        score = engine() % 3 == 0 ? special[engine() % 8] : static_cast<float>(engine() % 5) - 2.0f;
      }
      for (int64_t e = 0; rows > 0 && e < experts; ++e) scores[static_cast<size_t>(e)] = e == 3 ? 1.0f : NAN;
      const DeviceArray<float> scores_d(scores);
      const DeviceArray<int32_t> chosen_d(static_cast<size_t>(rows * k), 0x5a);
      std::vector<int32_t> chosen(static_cast<size_t>(rows * k));
      expect_ok(cuda::select_top_k<float>(scores_d.data(), chosen_d.data(), experts, k, rows, nullptr));
      select_top_k<float>(scores.data(), chosen.data(), experts, k, 0, rows);
      EXPECT_EQ(chosen_d.host(), chosen) << rows << " x " << experts;
    }
  }
  EXPECT_EQ(cuda::select_top_k<float>(nullptr, nullptr, 1025, 1, 1, nullptr), cuda::Status::kInvalid);
}

class SortTest : public DeviceTest {
 protected:
  // Compares with the twin, where `unit` and `kept` are given and where they are not.
  void check(const std::vector<int32_t>& expert, int64_t num_experts, int64_t capacity = INT32_MAX) {
    const auto n = static_cast<int64_t>(expert.size());
    SCOPED_TRACE(testing::Message() << n << " pairs, " << num_experts << " experts, capacity " << capacity);
    std::mt19937 engine(3);
    std::vector<uint8_t> kept(expert.size());
    std::vector<int32_t> unit(expert.size());
    for (auto& value : kept) value = engine() % 4 > 0;
    for (auto& value : unit) value = static_cast<int32_t>(engine() % 1000);
    const DeviceArray<int32_t> expert_d(expert), unit_d(unit);
    const DeviceArray<uint8_t> kept_d(kept);
    for (const bool given : {false, true}) {
      std::vector<int32_t> offsets(static_cast<size_t>(num_experts) + 1), row_of(expert.size());
      std::vector<int32_t> pair_of(expert.size()), unit_of(expert.size());
      PairSort sort{.expert = expert.data(),
                    .kept = given ? kept.data() : nullptr,
                    .unit = given ? unit.data() : nullptr,
                    .n = n,
                    .num_experts = num_experts,
                    .pairs_per_unit = 3,
                    .capacity = capacity,
                    .offsets = offsets.data(),
                    .pair_of_row = pair_of.data(),
                    .unit_of_row = unit_of.data(),
                    .row_of_pair = row_of.data()};
      sort_pairs_ref(sort);
      const DeviceArray<int32_t> offsets_d(offsets.size(), 0x5a), row_of_d(row_of.size(), 0x5a),
          pair_of_d(pair_of.size(), 0x5a), unit_of_d(unit_of.size(), 0x5a),
          counts_d(static_cast<size_t>(cuda::sort_pairs_counts(n, num_experts)), 0x5a);
      sort.expert = expert_d.data();
      if (given) sort.kept = kept_d.data();
      if (given) sort.unit = unit_d.data();
      sort.offsets = offsets_d.data();
      sort.pair_of_row = pair_of_d.data();
      sort.unit_of_row = unit_of_d.data();
      sort.row_of_pair = row_of_d.data();
      expect_ok(cuda::sort_pairs(sort, counts_d.data(), nullptr));
      EXPECT_EQ(offsets_d.host(), offsets);
      EXPECT_EQ(row_of_d.host(), row_of);
      const auto rows = static_cast<size_t>(offsets.back());
      const auto head = [rows](std::vector<int32_t> values) { return (values.resize(rows), values); };
      EXPECT_EQ(head(pair_of_d.host()), head(pair_of));
      EXPECT_EQ(head(unit_of_d.host()), head(unit_of));
    }
  }
};

TEST_F(SortTest, is_stable_for_any_number_of_pairs_and_experts) {
  std::mt19937 engine(2);
  for (const int64_t experts : {1, 5, 32, 130, 1024}) {
    for (const int64_t n : {0, 1, 32, 257, 2048, 2049, 7001}) {
      std::vector<int32_t> expert(static_cast<size_t>(n));
      // Some experts get nothing, and some pairs have none.
      for (auto& e : expert)
        e = static_cast<int32_t>(engine() % static_cast<unsigned>(experts) / 2 * 2) - (engine() % 9 == 0);
      for (auto& e : expert) e = std::min<int32_t>(e, static_cast<int32_t>(experts) - 1);
      check(expert, experts);
      check(expert, experts, 19);
    }
  }
}

TEST_F(SortTest, all_pairs_may_want_one_expert) {
  check(std::vector<int32_t>(5003, 6), 7);
  check(std::vector<int32_t>(5003, 0), 7, 100);
  check(std::vector<int32_t>(5003, -1), 7);
}

TEST_F(SortTest, too_many_experts_are_refused) {
  EXPECT_EQ(cuda::sort_pairs({.num_experts = 1025}, nullptr, nullptr), cuda::Status::kInvalid);
}

}  // namespace
}  // namespace conclave::kernels
