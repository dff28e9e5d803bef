// SPDX-License-Identifier: Apache-2.0
#include "rope.h"

#include "vector_math.h"

namespace conclave::kernels {

template <class T>
CONCLAVE_CPU_VARIANTS void rope(const T* x, const wide_t<T>* cosine, const wide_t<T>* sine, T* out,
                                int64_t heads, int64_t half, int direction, int64_t begin, int64_t end) {
  const auto sign = static_cast<wide_t<T>>(direction);
  for (int64_t token = begin; token < end; ++token) {
    const wide_t<T>* __restrict c = cosine + token * half;
    const wide_t<T>* __restrict s = sine + token * half;
    for (int64_t head = 0; head < heads; ++head) {
      const T* in = x + (token * heads + head) * 2 * half;
      T* target = out + (token * heads + head) * 2 * half;
#pragma GCC ivdep  // both halves of element i are read before either is written
      for (int64_t i = 0; i < half; ++i) {
        const wide_t<T> a = load(in[i]), b = load(in[half + i]), turn = sign * s[i];
        store(target[i], a * c[i] - b * turn);
        store(target[half + i], b * c[i] + a * turn);
      }
    }
  }
}

template void rope<float>(const float*, const float*, const float*, float*, int64_t, int64_t, int, int64_t,
                          int64_t);
template void rope<double>(const double*, const double*, const double*, double*, int64_t, int64_t, int,
                           int64_t, int64_t);
template void rope<bfloat16>(const bfloat16*, const float*, const float*, bfloat16*, int64_t, int64_t, int,
                             int64_t, int64_t);

}  // namespace conclave::kernels
