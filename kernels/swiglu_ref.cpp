// SPDX-License-Identifier: Apache-2.0
#include "swiglu.h"

#include <cmath>

namespace conclave::kernels {

template <class T>
void swiglu_forward_ref(const T* h, T* act, int64_t width, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t i = 0; i < width; ++i) {
      const double gate = h[row * 2 * width + i];
      const double up = h[row * 2 * width + width + i];
      act[row * width + i] = static_cast<T>(gate / (1.0 + std::exp(-gate)) * up);
    }
  }
}

template <class T>
void swiglu_backward_ref(const T* h, const T* d_act, const T* scale, T* d_h, T* scaled_act, T* d_scale,
                         int64_t width, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const double s = scale ? static_cast<double>(scale[row]) : 1.0;
    double dot = 0.0;
    for (int64_t i = 0; i < width; ++i) {
      const double gate = h[row * 2 * width + i];
      const double up = h[row * 2 * width + width + i];
      const double sigmoid = 1.0 / (1.0 + std::exp(-gate));
      const double act = gate * sigmoid * up;
      const double d = d_act[row * width + i];
      dot += d * act;
      scaled_act[row * width + i] = static_cast<T>(s * act);
      d_h[row * 2 * width + i] = static_cast<T>(s * d * up * sigmoid * (1.0 + gate * (1.0 - sigmoid)));
      d_h[row * 2 * width + width + i] = static_cast<T>(s * d * gate * sigmoid);
    }
    if (d_scale) d_scale[row] = static_cast<T>(dot);
  }
}

template void swiglu_forward_ref<float>(const float*, float*, int64_t, int64_t, int64_t);
template void swiglu_forward_ref<double>(const double*, double*, int64_t, int64_t, int64_t);
template void swiglu_backward_ref<float>(const float*, const float*, const float*, float*, float*, float*,
                                         int64_t, int64_t, int64_t);
template void swiglu_backward_ref<double>(const double*, const double*, const double*, double*, double*,
                                          double*, int64_t, int64_t, int64_t);

}  // namespace conclave::kernels
