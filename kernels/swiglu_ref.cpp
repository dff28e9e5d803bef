// SPDX-License-Identifier: Apache-2.0
#include "swiglu.h"

#include <cmath>

namespace conclave::kernels {

template <class H, class A>
void swiglu_forward_ref(const H* h, const wide_t<A>* scale, A* act, int64_t width, int64_t begin,
                        int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const double s = scale ? static_cast<double>(scale[row]) : 1.0;
    for (int64_t i = 0; i < width; ++i) {
      const double gate = load(h[row * 2 * width + i]);
      const double up = load(h[row * 2 * width + width + i]);
      store(act[row * width + i], static_cast<wide_t<A>>(s * gate / (1.0 + std::exp(-gate)) * up));
    }
  }
}

template <class H, class A>
void swiglu_backward_ref(const H* h, const A* d_act, const wide_t<A>* scale, A* d_h, A* scaled_act,
                         wide_t<A>* d_scale, int64_t width, int64_t begin, int64_t end) {
  using W = wide_t<A>;
  for (int64_t row = begin; row < end; ++row) {
    const double s = scale ? static_cast<double>(scale[row]) : 1.0;
    double dot = 0.0;
    for (int64_t i = 0; i < width; ++i) {
      const double gate = load(h[row * 2 * width + i]);
      const double up = load(h[row * 2 * width + width + i]);
      const double sigmoid = 1.0 / (1.0 + std::exp(-gate));
      const double act = gate * sigmoid * up;
      const double d = load(d_act[row * width + i]);
      dot += d * act;
      store(scaled_act[row * width + i], static_cast<W>(s * act));
      store(d_h[row * 2 * width + i], static_cast<W>(s * d * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))));
      store(d_h[row * 2 * width + width + i], static_cast<W>(s * d * gate * sigmoid));
    }
    if (d_scale) d_scale[row] = static_cast<W>(dot);
  }
}

#define CONCLAVE_INSTANTIATE(H, A)                                                                           \
  template void swiglu_forward_ref<H, A>(const H*, const wide_t<A>*, A*, int64_t, int64_t, int64_t);         \
  template void swiglu_backward_ref<H, A>(const H*, const A*, const wide_t<A>*, A*, A*, wide_t<A>*, int64_t, \
                                          int64_t, int64_t)
CONCLAVE_INSTANTIATE(float, float);
CONCLAVE_INSTANTIATE(double, double);
CONCLAVE_INSTANTIATE(bfloat16, bfloat16);
CONCLAVE_INSTANTIATE(bfloat16, float);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels
