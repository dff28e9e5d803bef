// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "bfloat16.h"

// Moving rows between token order and expert order, and between storage types. width: values per row. All
// work on targets [begin, end). Types (In, Out): (float, float), (double, double), (bfloat16, bfloat16),
// (bfloat16, float), (float, bfloat16).
namespace conclave::kernels {

// out[i, :] = source[index[i], :] for i in [begin, end).
template <class In, class Out>
void gather_rows(const In* source, const int32_t* index, Out* out, int64_t width, int64_t begin, int64_t end);

// out[u, :] = sum over j in [offsets[u], offsets[u + 1]) of rows[row_of[j], :], in the order of j; entries
// with row_of[j] < 0 are skipped. The fixed order makes two runs bitwise equal. The sum is kept wide and
// rounded once.
template <class In, class Out>
void sum_rows(const In* rows, const int32_t* offsets, const int32_t* row_of, Out* out, int64_t width,
              int64_t begin, int64_t end);

// out[i, :] = scale[i] * in[i, :]; `in` and `out` may be the same memory where their types are the same.
template <class In, class Out>
void scale_rows(const In* in, const wide_t<In>* scale, Out* out, int64_t width, int64_t begin, int64_t end);

// out[i] = in[i] for single values i in [begin, end).
template <class In, class Out>
void convert(const In* in, Out* out, int64_t begin, int64_t end);

// Plain-loop twins.
template <class In, class Out>
void gather_rows_ref(const In* source, const int32_t* index, Out* out, int64_t width, int64_t begin,
                     int64_t end);
template <class In, class Out>
void sum_rows_ref(const In* rows, const int32_t* offsets, const int32_t* row_of, Out* out, int64_t width,
                  int64_t begin, int64_t end);
template <class In, class Out>
void scale_rows_ref(const In* in, const wide_t<In>* scale, Out* out, int64_t width, int64_t begin,
                    int64_t end);

}  // namespace conclave::kernels
