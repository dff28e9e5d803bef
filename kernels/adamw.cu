// SPDX-License-Identifier: Apache-2.0
// Bound by memory: one pass reads p, g, m, v and writes p, m, v and the rounded copy.
#include "adamw.h"

#include <cmath>

#include "device/pack.h"

namespace conclave::kernels::cuda {

namespace {

// The constants of a step, in the type of the parameters.
template <class T>
struct Factors {
  T decay, beta1, rest1, beta2, rest2, rate, root, eps, scale;
};

template <class T, class G, int N>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(T* p, const G* g, T* m, T* v, bfloat16* copy, Factors<T> f, int64_t count) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= count) return;
  auto values = load_pack<N>(p + i), first = load_pack<N>(m + i), second = load_pack<N>(v + i);
  const auto gradients = load_pack<N>(g + i);
  Pack<bfloat16, N> rounded;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const T gradient = static_cast<T>(load(gradients.values[n])) * f.scale;
    T& moment = first.values[n];
    T& square = second.values[n];
    moment = f.beta1 * moment + f.rest1 * gradient;
    square = f.beta2 * square + f.rest2 * gradient * gradient;
    values.values[n] =
        values.values[n] * f.decay - f.rate * moment / (static_cast<T>(sqrt(square)) * f.root + f.eps);
    store(rounded.values[n], static_cast<float>(values.values[n]));
  }
  store_pack(p + i, values);
  store_pack(m + i, first);
  store_pack(v + i, second);
  if (copy) store_pack(copy + i, rounded);
}

}  // namespace

template <class T, class G>
Status adamw(T* p, const G* g, T* m, T* v, bfloat16* copy, const AdamWStep& step, int64_t count,
             Stream stream) {
  const Factors<T> factors{.decay = static_cast<T>(1.0 - step.lr * step.weight_decay),
                           .beta1 = static_cast<T>(step.beta1),
                           .rest1 = static_cast<T>(1.0 - step.beta1),
                           .beta2 = static_cast<T>(step.beta2),
                           .rest2 = static_cast<T>(1.0 - step.beta2),
                           .rate = static_cast<T>(step.lr / step.bias_correction1),
                           .root = static_cast<T>(1.0 / std::sqrt(step.bias_correction2)),
                           .eps = static_cast<T>(step.eps),
                           .scale = static_cast<T>(step.grad_scale)};
  return packed<kPackOf<T>>(count, {p, g, m, v, copy}, [&]<int N>(std::integral_constant<int, N>) {
    return launch({.blocks = ceil_div(count, int64_t{kThreads} * N), .threads = kThreads, .stream = stream},
                  adamw_kernel<T, G, N>, p, g, m, v, copy, factors, count);
  });
}

template Status adamw<float, float>(float*, const float*, float*, float*, bfloat16*, const AdamWStep&,
                                    int64_t, Stream);
template Status adamw<float, bfloat16>(float*, const bfloat16*, float*, float*, bfloat16*, const AdamWStep&,
                                       int64_t, Stream);
template Status adamw<double, double>(double*, const double*, double*, double*, bfloat16*, const AdamWStep&,
                                      int64_t, Stream);

}  // namespace conclave::kernels::cuda
