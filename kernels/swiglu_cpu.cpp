// SPDX-License-Identifier: Apache-2.0
#include "swiglu.h"

#include "vector_math.h"

namespace conclave::kernels {

namespace {

template <class T>
[[gnu::always_inline]] inline void swiglu_forward_row(const T* __restrict gate, const T* __restrict up,
                                                      T* __restrict act, int64_t width) {
  for (int64_t i = 0; i < width; ++i) act[i] = gate[i] / (T(1) + fast_exp(-gate[i])) * up[i];
}

// Several partial sums, because one running sum would keep the loop from vectorising; their number is fixed,
// so the order of additions is too.
template <class T>
[[gnu::always_inline]] inline T swiglu_dot(const T* __restrict a, const T* __restrict b, int64_t width) {
  constexpr int64_t kLanes = 16;
  T partial[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) partial[lane] += a[i + lane] * b[i + lane];
  }
  T total = 0;
  for (; i < width; ++i) total += a[i] * b[i];
  for (int64_t lane = 0; lane < kLanes; ++lane) total += partial[lane];
  return total;
}

template <class T>
[[gnu::always_inline]] inline void swiglu_backward_row(const T* __restrict gate, const T* __restrict up,
                                                       const T* __restrict d_act, T s, T* __restrict d_gate,
                                                       T* __restrict d_up, T* __restrict act, int64_t width) {
  for (int64_t i = 0; i < width; ++i) {
    const T sigmoid = T(1) / (T(1) + fast_exp(-gate[i]));
    const T silu = gate[i] * sigmoid;
    const T d = s * d_act[i];
    act[i] = silu * up[i];
    d_gate[i] = d * up[i] * (sigmoid + silu * (T(1) - sigmoid));
    d_up[i] = d * silu;
  }
}

template <class T>
[[gnu::always_inline]] inline void scale_row(T* __restrict row, T s, int64_t width) {
  for (int64_t i = 0; i < width; ++i) row[i] *= s;
}

template <class T>
[[gnu::always_inline]] inline void swiglu_backward_rows(const T* h, const T* d_act, const T* scale, T* d_h,
                                                        T* scaled_act, T* d_scale, int64_t width,
                                                        int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T s = scale ? scale[row] : T(1);
    T* act = scaled_act + row * width;
    const T* d = d_act + row * width;
    swiglu_backward_row(h + row * 2 * width, h + row * 2 * width + width, d, s, d_h + row * 2 * width,
                        d_h + row * 2 * width + width, act, width);
    if (d_scale) d_scale[row] = swiglu_dot(d, act, width);
    if (scale) scale_row(act, s, width);
  }
}

}  // namespace

template <>
CONCLAVE_CPU_VARIANTS void swiglu_forward<float>(const float* h, float* act, int64_t width, int64_t begin,
                                                 int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    swiglu_forward_row(h + row * 2 * width, h + row * 2 * width + width, act + row * width, width);
  }
}

template <>
void swiglu_forward<double>(const double* h, double* act, int64_t width, int64_t begin, int64_t end) {
  swiglu_forward_ref(h, act, width, begin, end);
}

template <>
CONCLAVE_CPU_VARIANTS void swiglu_backward<float>(const float* h, const float* d_act, const float* scale,
                                                  float* d_h, float* scaled_act, float* d_scale,
                                                  int64_t width, int64_t begin, int64_t end) {
  swiglu_backward_rows(h, d_act, scale, d_h, scaled_act, d_scale, width, begin, end);
}

template <>
void swiglu_backward<double>(const double* h, const double* d_act, const double* scale, double* d_h,
                             double* scaled_act, double* d_scale, int64_t width, int64_t begin, int64_t end) {
  swiglu_backward_ref(h, d_act, scale, d_h, scaled_act, d_scale, width, begin, end);
}

}  // namespace conclave::kernels
