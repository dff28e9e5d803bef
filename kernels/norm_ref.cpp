// SPDX-License-Identifier: Apache-2.0
#include "norm.h"

#include <cmath>

namespace conclave::kernels {

template <class T>
void rms_norm_forward_ref(const T* x, const wide_t<T>* weight, double eps, T* out, wide_t<T>* inv_rms,
                          int64_t width, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    double sum = 0.0;
    for (int64_t i = 0; i < width; ++i)
      sum += static_cast<double>(load(x[row * width + i])) * load(x[row * width + i]);
    const double inv = 1.0 / std::sqrt(sum / static_cast<double>(width) + eps);
    inv_rms[row] = static_cast<wide_t<T>>(inv);
    for (int64_t i = 0; i < width; ++i) {
      store(out[row * width + i], static_cast<wide_t<T>>(load(x[row * width + i]) * inv * weight[i]));
    }
  }
}

template <class T>
void rms_norm_backward_ref(const T* x, const wide_t<T>* weight, const wide_t<T>* inv_rms, const T* d_out,
                           T* d_x, wide_t<T>* d_weight, int64_t width, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const double inv = inv_rms[row];
    double dot = 0.0;
    for (int64_t i = 0; i < width; ++i) {
      dot += static_cast<double>(load(d_out[row * width + i])) * weight[i] * load(x[row * width + i]);
    }
    for (int64_t i = 0; i < width; ++i) {
      const double value = load(x[row * width + i]), gradient = load(d_out[row * width + i]);
      d_weight[i] += static_cast<wide_t<T>>(gradient * value * inv);
      store(d_x[row * width + i],
            static_cast<wide_t<T>>(
                inv * (gradient * weight[i] - value * inv * inv * dot / static_cast<double>(width))));
    }
  }
}

#define CONCLAVE_INSTANTIATE(T)                                                                      \
  template void rms_norm_forward_ref<T>(const T*, const wide_t<T>*, double, T*, wide_t<T>*, int64_t, \
                                        int64_t, int64_t);                                           \
  template void rms_norm_backward_ref<T>(const T*, const wide_t<T>*, const wide_t<T>*, const T*, T*, \
                                         wide_t<T>*, int64_t, int64_t, int64_t)
CONCLAVE_INSTANTIATE(float);
CONCLAVE_INSTANTIATE(double);
CONCLAVE_INSTANTIATE(bfloat16);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels
