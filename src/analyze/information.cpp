// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/information.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace conclave::analyze {

double information_of_cell(double cell, double row, double column, double sum) {
  if (cell <= 0.0) return 0.0;
  return cell / sum * std::log2(cell * sum / (row * column));
}

double mutual_information_bits(std::span<const double> table, size_t columns) {
  if (columns == 0) return 0.0;
  const size_t rows = table.size() / columns;
  std::vector<double> row_sums(rows, 0.0), column_sums(columns, 0.0);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      row_sums[r] += table[r * columns + c];
      column_sums[c] += table[r * columns + c];
    }
  }
  const double sum = std::accumulate(row_sums.begin(), row_sums.end(), 0.0);
  double bits = 0.0;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      bits += information_of_cell(table[r * columns + c], row_sums[r], column_sums[c], sum);
    }
  }
  return std::max(bits, 0.0);  // rounding alone can take it below
}

double normalised_entropy(std::span<const double> amounts) {
  const double sum = std::accumulate(amounts.begin(), amounts.end(), 0.0);
  if (sum <= 0.0 || amounts.size() < 2) return 0.0;
  double entropy = 0.0;
  for (const double amount : amounts) {
    if (amount > 0.0) entropy -= amount / sum * std::log(amount / sum);
  }
  return entropy / std::log(static_cast<double>(amounts.size()));
}

double max_over_mean(std::span<const double> amounts) {
  const double sum = std::accumulate(amounts.begin(), amounts.end(), 0.0);
  if (sum <= 0.0) return 0.0;
  return *std::max_element(amounts.begin(), amounts.end()) * static_cast<double>(amounts.size()) / sum;
}

}  // namespace conclave::analyze
