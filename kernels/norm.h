// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "bfloat16.h"
#include "device/status.h"

// RMSNorm (Zhang and Sennrich, 2019) over rows of `width` values: out = x * inv_rms * weight with
// inv_rms = 1 / sqrt(mean(x^2) + eps). T: float, double, bfloat16; statistics and weight are wide. Rows
// [begin, end).
namespace conclave::kernels {

template <class T>
void rms_norm_forward(const T* x, const wide_t<T>* weight, double eps, T* out, wide_t<T>* inv_rms,
                      int64_t width, int64_t begin, int64_t end);

// With g = d_out * weight: d_x = inv_rms * (g - x * inv_rms^2 * mean(g x)). d_weight [width] receives this
// range's sum of d_out * x * inv_rms, added to what is there.
template <class T>
void rms_norm_backward(const T* x, const wide_t<T>* weight, const wide_t<T>* inv_rms, const T* d_out, T* d_x,
                       wide_t<T>* d_weight, int64_t width, int64_t begin, int64_t end);

// Plain-loop twins in double arithmetic.
template <class T>
void rms_norm_forward_ref(const T* x, const wide_t<T>* weight, double eps, T* out, wide_t<T>* inv_rms,
                          int64_t width, int64_t begin, int64_t end);
template <class T>
void rms_norm_backward_ref(const T* x, const wide_t<T>* weight, const wide_t<T>* inv_rms, const T* d_out,
                           T* d_x, wide_t<T>* d_weight, int64_t width, int64_t begin, int64_t end);

namespace cuda {

template <class T>
Status rms_norm_forward(const T* x, const wide_t<T>* weight, double eps, T* out, wide_t<T>* inv_rms,
                        int64_t width, int64_t rows, Stream stream);

// The sum over rows that goes into d_weight is taken in two stages: `partials` is room for
// rms_norm_partials(rows) rows of `width`. Widths up to kMaxNormWidth.
constexpr int64_t kMaxNormWidth = 16384;
int64_t rms_norm_partials(int64_t rows);
template <class T>
Status rms_norm_backward(const T* x, const wide_t<T>* weight, const wide_t<T>* inv_rms, const T* d_out,
                         T* d_x, wide_t<T>* d_weight, wide_t<T>* partials, int64_t width, int64_t rows,
                         Stream stream);

}  // namespace cuda

}  // namespace conclave::kernels
