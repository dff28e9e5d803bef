// SPDX-License-Identifier: Apache-2.0
#include "adamw.h"

#include <cmath>

namespace conclave::kernels {

template <class T>
void adamw(T* __restrict p, const T* __restrict g, T* __restrict m, T* __restrict v, const AdamWStep& step,
           int64_t begin, int64_t end) {
  const T decay = static_cast<T>(1.0 - step.lr * step.weight_decay);
  const T beta1 = static_cast<T>(step.beta1), beta2 = static_cast<T>(step.beta2);
  const T rest1 = static_cast<T>(1.0 - step.beta1), rest2 = static_cast<T>(1.0 - step.beta2);
  const T rate = static_cast<T>(step.lr / step.bias_correction1);
  const T root = static_cast<T>(1.0 / std::sqrt(step.bias_correction2));
  const T eps = static_cast<T>(step.eps), scale = static_cast<T>(step.grad_scale);
  for (int64_t i = begin; i < end; ++i) {
    const T gradient = g[i] * scale;
    m[i] = beta1 * m[i] + rest1 * gradient;
    v[i] = beta2 * v[i] + rest2 * gradient * gradient;
    p[i] = p[i] * decay - rate * m[i] / (std::sqrt(v[i]) * root + eps);
  }
}

template void adamw<float>(float*, const float*, float*, float*, const AdamWStep&, int64_t, int64_t);
template void adamw<double>(double*, const double*, double*, double*, const AdamWStep&, int64_t, int64_t);

}  // namespace conclave::kernels
