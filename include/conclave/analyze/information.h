// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <span>

// Formulas over tables of counts (or of weight mass), row-major [rows, columns]. Empty and all-zero tables
// have a defined result: 0.
namespace conclave::analyze {

// I(row; column) in bits with p = cell / sum: sum of p_ij log2(p_ij / (p_i p_j)) over the cells above 0. At
// most log2(min(rows, columns)); 0 when the rows are proportional. The plain estimate: with N counts it is
// about (rows - 1)(columns - 1) / (2 N ln 2) too high (Miller 1955).
double mutual_information_bits(std::span<const double> table, size_t columns);

// What one cell adds to that sum, in bits: high where the pair is both frequent and more frequent than
// chance.
double information_of_cell(double cell, double row, double column, double sum);

// Entropy of the shares over the logarithm of their number: 1 even, 0 all in one; 0 for fewer than two.
double normalised_entropy(std::span<const double> amounts);

// Largest amount over the mean; 1 is even, 0 without any.
double max_over_mean(std::span<const double> amounts);

}  // namespace conclave::analyze
