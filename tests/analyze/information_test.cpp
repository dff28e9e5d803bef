// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/information.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace {

using namespace conclave::analyze;

// H(column) - H(column | row) in bits: another way to the same number.
double difference_of_entropies(const std::vector<double>& table, size_t columns) {
  double sum = 0;
  for (const double c : table) sum += c;
  const auto entropy = [](const std::vector<double>& amounts) {
    double total = 0, bits = 0;
    for (const double a : amounts) total += a;
    for (const double a : amounts) {
      if (a > 0) bits -= a / total * std::log(a / total) / std::log(2.0);
    }
    return bits;
  };
  std::vector<double> marginal(columns, 0.0);
  double conditional = 0;
  for (size_t r = 0; r < table.size() / columns; ++r) {
    const std::vector<double> row(&table[r * columns], &table[r * columns] + columns);
    double row_sum = 0;
    for (size_t c = 0; c < columns; ++c) row_sum += row[c], marginal[c] += row[c];
    if (row_sum > 0) conditional += row_sum / sum * entropy(row);
  }
  return entropy(marginal) - conditional;
}

TEST(MutualInformation, EqualsTheDifferenceOfEntropies) {
  std::mt19937_64 generator(5);
  for (const size_t columns : {2u, 3u, 7u}) {
    for (const size_t rows : {1u, 5u, 11u}) {
      std::vector<double> table(rows * columns);
      for (auto& cell : table) cell = static_cast<double>(generator() % 50);
      table[0] = 0;
      table[1] = 3;
      const double bits = mutual_information_bits(table, columns);
      EXPECT_NEAR(bits, difference_of_entropies(table, columns), 1e-12);
      EXPECT_LE(bits, std::log2(static_cast<double>(std::min(rows, columns))) + 1e-12);
    }
  }
}

TEST(MutualInformation, IsOneBitForTwoExclusivePairsAndZeroForProportionalRows) {
  EXPECT_DOUBLE_EQ(mutual_information_bits(std::vector<double>{9, 0, 0, 9}, 2), 1.0);
  EXPECT_NEAR(mutual_information_bits(std::vector<double>{1, 2, 3, 10, 20, 30}, 3), 0.0, 1e-15);
}

TEST(MutualInformation, IsZeroWithoutAnyCount) {
  EXPECT_EQ(mutual_information_bits({}, 3), 0.0);
  EXPECT_EQ(mutual_information_bits({}, 0), 0.0);
  EXPECT_EQ(mutual_information_bits(std::vector<double>(6, 0.0), 3), 0.0);
}

TEST(Shares, EntropyAndMaxOverMeanOfEvenOneSidedAndEmptyAmounts) {
  EXPECT_NEAR(normalised_entropy(std::vector<double>{5, 5, 5}), 1.0, 1e-15);
  EXPECT_EQ(normalised_entropy(std::vector<double>{0, 5, 0}), 0.0);
  EXPECT_EQ(normalised_entropy(std::vector<double>{0, 0}), 0.0);
  EXPECT_EQ(normalised_entropy(std::vector<double>{4}), 0.0);
  EXPECT_DOUBLE_EQ(max_over_mean(std::vector<double>{6, 1, 2}), 2.0);
  EXPECT_EQ(max_over_mean({}), 0.0);
}

}  // namespace
