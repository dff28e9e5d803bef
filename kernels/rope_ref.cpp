// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <vector>

#include "rope.h"

namespace conclave::kernels {

template <class T>
void rope_ref(const T* x, const wide_t<T>* cosine, const wide_t<T>* sine, T* out, int64_t heads, int64_t half,
              int direction, int64_t begin, int64_t end) {
  for (int64_t row = begin * heads; row < end * heads; ++row) {
    const std::vector<T> in(x + row * 2 * half, x + (row + 1) * 2 * half);
    for (int64_t i = 0; i < half; ++i) {
      const wide_t<T> c = cosine[row / heads * half + i], s = direction * sine[row / heads * half + i];
      const wide_t<T> a = load(in[static_cast<std::size_t>(i)]),
                      b = load(in[static_cast<std::size_t>(half + i)]);
      store(out[row * 2 * half + i], a * c - b * s);
      store(out[row * 2 * half + half + i], b * c + a * s);
    }
  }
}

template void rope_ref<float>(const float*, const float*, const float*, float*, int64_t, int64_t, int,
                              int64_t, int64_t);
template void rope_ref<double>(const double*, const double*, const double*, double*, int64_t, int64_t, int,
                               int64_t, int64_t);
template void rope_ref<bfloat16>(const bfloat16*, const float*, const float*, bfloat16*, int64_t, int64_t,
                                 int, int64_t, int64_t);

}  // namespace conclave::kernels
