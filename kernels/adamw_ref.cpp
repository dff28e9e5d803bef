// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "adamw.h"

namespace conclave::kernels {

template <class T, class G>
void adamw_ref(T* p, const G* g, T* m, T* v, bfloat16* copy, const AdamWStep& step, int64_t begin,
               int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const double gradient = static_cast<double>(load(g[i])) * step.grad_scale;
    const double moment = step.beta1 * m[i] + (1.0 - step.beta1) * gradient;
    const double square = step.beta2 * v[i] + (1.0 - step.beta2) * gradient * gradient;
    const double update =
        (moment / step.bias_correction1) / (std::sqrt(square / step.bias_correction2) + step.eps);
    m[i] = static_cast<T>(moment);
    v[i] = static_cast<T>(square);
    p[i] = static_cast<T>(p[i] * (1.0 - step.lr * step.weight_decay) - step.lr * update);
    if (copy) store(copy[i], static_cast<float>(p[i]));
  }
}

template void adamw_ref<float, float>(float*, const float*, float*, float*, bfloat16*, const AdamWStep&,
                                      int64_t, int64_t);
template void adamw_ref<float, bfloat16>(float*, const bfloat16*, float*, float*, bfloat16*, const AdamWStep&,
                                         int64_t, int64_t);
template void adamw_ref<double, double>(double*, const double*, double*, double*, bfloat16*, const AdamWStep&,
                                        int64_t, int64_t);

}  // namespace conclave::kernels
