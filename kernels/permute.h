// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "bfloat16.h"
#include "device/status.h"

// Moving rows between token order and expert order, and between storage types. width: values per row; any
// width, and sizes may be zero. Types (In, Out): (float, float), (double, double), (bfloat16, bfloat16),
// (bfloat16, float), (float, bfloat16); T: the first three.
//
// The functions of this namespace work on targets [begin, end). Those of `cuda` work on all of them, on
// device memory, and are quickest where rows start at multiples of 16 bytes.
namespace conclave::kernels {

// out[i, :] = source[index[i], :] for i in [begin, end).
template <class In, class Out>
void gather_rows(const In* source, const int32_t* index, Out* out, int64_t width, int64_t begin, int64_t end);

// out[u, :] = sum over j in [offsets[u], offsets[u + 1]) of weight[j] * rows[row_of[j], :], in the order of
// j; entries with row_of[j] < 0 are skipped; weight null: 1. The fixed order makes two runs bitwise equal.
// The sum is kept wide and rounded once.
template <class In, class Out>
void sum_rows(const In* rows, const int32_t* offsets, const int32_t* row_of, const wide_t<In>* weight,
              Out* out, int64_t width, int64_t begin, int64_t end);

// out[row_of[j], :] = x[u, :] for the pairs j in [offsets[u], offsets[u + 1]) with row_of[j] >= 0: every row
// is read once and written to all its places.
template <class T>
void permute_rows(const T* x, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
                  int64_t begin, int64_t end);

// out[i] = in[i] for single values i in [begin, end).
template <class In, class Out>
void convert(const In* in, Out* out, int64_t begin, int64_t end);

// Plain-loop twins.
template <class In, class Out>
void gather_rows_ref(const In* source, const int32_t* index, Out* out, int64_t width, int64_t begin,
                     int64_t end);
template <class In, class Out>
void sum_rows_ref(const In* rows, const int32_t* offsets, const int32_t* row_of, const wide_t<In>* weight,
                  Out* out, int64_t width, int64_t begin, int64_t end);
template <class T>
void permute_rows_ref(const T* x, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
                      int64_t begin, int64_t end);
template <class T>
void combine_backward_ref(const T* d_out, const T* rows, const int32_t* unit, const int32_t* row_of,
                          const wide_t<T>* weight, T* d_rows, wide_t<T>* d_weight, int64_t width,
                          int64_t begin, int64_t end);

namespace cuda {

template <class T>
Status permute_rows(const T* x, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
                    int64_t units, Stream stream);

template <class In, class Out>
Status gather_rows(const In* source, const int32_t* index, Out* out, int64_t width, int64_t rows,
                   Stream stream);
template <class In, class Out>
Status sum_rows(const In* rows, const int32_t* offsets, const int32_t* row_of, const wide_t<In>* weight,
                Out* out, int64_t width, int64_t units, Stream stream);

// The gradient of a weighted sum_rows, for every pair j of unit[j]: d_rows[row_of[j], :] = weight[j] *
// d_out[unit[j], :] and d_weight[j] = <d_out[unit[j], :], rows[row_of[j], :]>, 0 where row_of[j] < 0.
template <class T>
Status combine_backward(const T* d_out, const T* rows, const int32_t* unit, const int32_t* row_of,
                        const wide_t<T>* weight, T* d_rows, wide_t<T>* d_weight, int64_t width, int64_t pairs,
                        Stream stream);

}  // namespace cuda

}  // namespace conclave::kernels
