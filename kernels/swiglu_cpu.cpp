// SPDX-License-Identifier: Apache-2.0
#include "swiglu.h"

#include "vector_math.h"

namespace conclave::kernels {

template <class H, class A>
CONCLAVE_CPU_VARIANTS void swiglu_forward(const H* h, A* act, int64_t width, int64_t begin, int64_t end) {
  using W = wide_t<A>;
  for (int64_t row = begin; row < end; ++row) {
    const H* __restrict gate = h + row * 2 * width;
    const H* __restrict up = gate + width;
    A* __restrict out = act + row * width;
    for (int64_t i = 0; i < width; ++i) {
      const W g = load(gate[i]);
      store(out[i], g / (W(1) + fast_exp(-g)) * load(up[i]));
    }
  }
}

namespace {

template <class H, class A>
[[gnu::always_inline]] inline void swiglu_backward_row(const H* __restrict gate, const H* __restrict up,
                                                       const A* __restrict d_act, wide_t<A> s,
                                                       A* __restrict d_gate, A* __restrict d_up,
                                                       A* __restrict scaled_act, int64_t width) {
  using W = wide_t<A>;
  for (int64_t i = 0; i < width; ++i) {
    const W g = load(gate[i]), u = load(up[i]);
    const W sigmoid = W(1) / (W(1) + fast_exp(-g));
    const W silu = g * sigmoid;
    const W d = s * load(d_act[i]);
    store(scaled_act[i], s * (silu * u));
    store(d_gate[i], d * u * (sigmoid + silu * (W(1) - sigmoid)));
    store(d_up[i], d * silu);
  }
}

// <d_act, act>
template <class H, class A>
[[gnu::always_inline]] inline wide_t<A> swiglu_dot(const H* __restrict gate, const H* __restrict up,
                                                   const A* __restrict d_act, int64_t width) {
  using W = wide_t<A>;
  return lane_sum<W>(width, [&](int64_t i) {
    const W g = load(gate[i]);
    return g / (W(1) + fast_exp(-g)) * load(up[i]) * load(d_act[i]);
  });
}

}  // namespace

template <class H, class A>
CONCLAVE_CPU_VARIANTS void swiglu_backward(const H* h, const A* d_act, const wide_t<A>* scale, A* d_h,
                                           A* scaled_act, wide_t<A>* d_scale, int64_t width, int64_t begin,
                                           int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const H* gate = h + row * 2 * width;
    const A* d = d_act + row * width;
    A* d_gate = d_h + row * 2 * width;
    if (d_scale) d_scale[row] = swiglu_dot(gate, gate + width, d, width);
    swiglu_backward_row(gate, gate + width, d, scale ? scale[row] : wide_t<A>(1), d_gate, d_gate + width,
                        scaled_act + row * width, width);
  }
}

#define CONCLAVE_INSTANTIATE(H, A)                                                                       \
  template void swiglu_forward<H, A>(const H*, A*, int64_t, int64_t, int64_t);                           \
  template void swiglu_backward<H, A>(const H*, const A*, const wide_t<A>*, A*, A*, wide_t<A>*, int64_t, \
                                      int64_t, int64_t)
CONCLAVE_INSTANTIATE(float, float);
CONCLAVE_INSTANTIATE(double, double);
CONCLAVE_INSTANTIATE(bfloat16, bfloat16);
CONCLAVE_INSTANTIATE(bfloat16, float);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels
