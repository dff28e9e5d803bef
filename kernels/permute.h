// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

// Moving rows between token order and expert order. width: values per row. All work on targets [begin, end).
// T: float, double.
namespace conclave::kernels {

// out[i, :] = source[index[i], :] for i in [begin, end).
template <class T>
void gather_rows(const T* source, const int32_t* index, T* out, int64_t width, int64_t begin, int64_t end);

// out[u, :] = sum over j in [offsets[u], offsets[u + 1]) of rows[row_of[j], :], in the order of j; entries
// with row_of[j] < 0 are skipped. The fixed order makes two runs bitwise equal.
template <class T>
void sum_rows(const T* rows, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
              int64_t begin, int64_t end);

}  // namespace conclave::kernels
