// SPDX-License-Identifier: Apache-2.0
#include "norm.h"

#include <cmath>

#include "vector_math.h"

namespace conclave::kernels {

template <class T>
CONCLAVE_CPU_VARIANTS void rms_norm_forward(const T* x, const wide_t<T>* __restrict weight, double eps,
                                            T* out, wide_t<T>* inv_rms, int64_t width, int64_t begin,
                                            int64_t end) {
  using W = wide_t<T>;
  for (int64_t row = begin; row < end; ++row) {
    const T* __restrict in = x + row * width;
    T* __restrict target = out + row * width;
    const W sum = lane_sum<W>(width, [&](int64_t i) { return load(in[i]) * load(in[i]); });
    const W inv = W(1) / std::sqrt(sum / static_cast<W>(width) + static_cast<W>(eps));
    inv_rms[row] = inv;
    for (int64_t i = 0; i < width; ++i) store(target[i], load(in[i]) * inv * weight[i]);
  }
}

template <class T>
CONCLAVE_CPU_VARIANTS void rms_norm_backward(const T* x, const wide_t<T>* __restrict weight,
                                             const wide_t<T>* inv_rms, const T* d_out, T* d_x,
                                             wide_t<T>* __restrict d_weight, int64_t width, int64_t begin,
                                             int64_t end) {
  using W = wide_t<T>;
  for (int64_t row = begin; row < end; ++row) {
    const T* __restrict in = x + row * width;
    const T* __restrict d = d_out + row * width;
    T* __restrict target = d_x + row * width;
    const W inv = inv_rms[row];
    const W dot = lane_sum<W>(width, [&](int64_t i) { return load(d[i]) * weight[i] * load(in[i]); });
    const W pull = dot * inv * inv / static_cast<W>(width);
    for (int64_t i = 0; i < width; ++i) {
      const W value = load(in[i]), gradient = load(d[i]);
      d_weight[i] += gradient * value * inv;
      store(target[i], inv * (gradient * weight[i] - value * pull));
    }
  }
}

#define CONCLAVE_INSTANTIATE(T)                                                                              \
  template void rms_norm_forward<T>(const T*, const wide_t<T>*, double, T*, wide_t<T>*, int64_t, int64_t,    \
                                    int64_t);                                                                \
  template void rms_norm_backward<T>(const T*, const wide_t<T>*, const wide_t<T>*, const T*, T*, wide_t<T>*, \
                                     int64_t, int64_t, int64_t)
CONCLAVE_INSTANTIATE(float);
CONCLAVE_INSTANTIATE(double);
CONCLAVE_INSTANTIATE(bfloat16);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels
