// SPDX-License-Identifier: Apache-2.0
// Bound by memory; one thread a pair of values, neighbours in a half.
#include "rope.h"

#include "device/launch.h"

namespace conclave::kernels::cuda {

namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(const T* x, const wide_t<T>* cosine, const wide_t<T>* sine, T* out, int64_t heads,
                int64_t half, int direction, int64_t pairs) {
  using W = wide_t<T>;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= pairs) return;
  const int64_t row = pair / half, i = pair - row * half, token = row / heads;
  const W c = cosine[token * half + i], s = static_cast<W>(direction) * sine[token * half + i];
  const int64_t at = row * 2 * half + i;
  const W first = load(x[at]), second = load(x[at + half]);
  store(out[at], first * c - second * s);
  store(out[at + half], second * c + first * s);
}

}  // namespace

template <class T>
Status rope(const T* x, const wide_t<T>* cosine, const wide_t<T>* sine, T* out, int64_t heads, int64_t half,
            int direction, int64_t tokens, Stream stream) {
  const int64_t pairs = tokens * heads * half;
  return launch({.blocks = ceil_div(pairs, kThreads), .threads = kThreads, .stream = stream}, rope_kernel<T>,
                x, cosine, sine, out, heads, half, direction, pairs);
}

#define CONCLAVE_INSTANTIATE(T)                                                                             \
  template Status rope<T>(const T*, const wide_t<T>*, const wide_t<T>*, T*, int64_t, int64_t, int, int64_t, \
                          Stream)
CONCLAVE_INSTANTIATE(float);
CONCLAVE_INSTANTIATE(double);
CONCLAVE_INSTANTIATE(bfloat16);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels::cuda
