// SPDX-License-Identifier: Apache-2.0
#include "swiglu.h"

#include "vector_math.h"

namespace conclave::kernels {

template <class H, class A>
CONCLAVE_CPU_VARIANTS void swiglu_forward(const H* h, const wide_t<A>* scale, A* act, int64_t width,
                                          int64_t begin, int64_t end) {
  using W = wide_t<A>;
  for (int64_t row = begin; row < end; ++row) {
    const H* __restrict gate = h + row * 2 * width;
    const H* __restrict up = gate + width;
    A* __restrict out = act + row * width;
    const W s = scale ? scale[row] : W(1);
    for (int64_t i = 0; i < width; ++i) {
      const W g = load(gate[i]);
      store(out[i], s * (g / (W(1) + fast_exp(-g)) * load(up[i])));
    }
  }
}

namespace {

// Of at most kChunk columns. `act`, before the scale and unrounded, is for the sum <d_act, act>: computing it
// once more would cost a second exponential.
constexpr int64_t kChunk = 256;
template <class H, class A>
[[gnu::always_inline]] inline void swiglu_backward_chunk(const H* __restrict gate, const H* __restrict up,
                                                         const A* __restrict d_act, wide_t<A> s,
                                                         A* __restrict d_gate, A* __restrict d_up,
                                                         A* __restrict scaled_act, wide_t<A>* __restrict act,
                                                         int64_t count) {
  using W = wide_t<A>;
  for (int64_t i = 0; i < count; ++i) {
    const W g = load(gate[i]), u = load(up[i]);
    const W sigmoid = W(1) / (W(1) + fast_exp(-g));
    const W silu = g * sigmoid;
    const W d = s * load(d_act[i]);
    act[i] = silu * u;
    store(scaled_act[i], s * act[i]);
    store(d_gate[i], d * u * (sigmoid + silu * (W(1) - sigmoid)));
    store(d_up[i], d * silu);
  }
}

}  // namespace

template <class H, class A>
CONCLAVE_CPU_VARIANTS void swiglu_backward(const H* h, const A* d_act, const wide_t<A>* scale, A* d_h,
                                           A* scaled_act, wide_t<A>* d_scale, int64_t width, int64_t begin,
                                           int64_t end) {
  using W = wide_t<A>;
  W act[kChunk];
  for (int64_t row = begin; row < end; ++row) {
    const H* gate = h + row * 2 * width;
    const A* d = d_act + row * width;
    A* d_gate = d_h + row * 2 * width;
    W dot = 0;
    for (int64_t i = 0; i < width; i += kChunk) {
      const int64_t count = width - i < kChunk ? width - i : kChunk;
      swiglu_backward_chunk(gate + i, gate + width + i, d + i, scale ? scale[row] : W(1), d_gate + i,
                            d_gate + width + i, scaled_act + row * width + i, act, count);
      dot += lane_sum<W>(count, [&](int64_t j) { return act[j] * load(d[i + j]); });
    }
    if (d_scale) d_scale[row] = dot;
  }
}

#define CONCLAVE_INSTANTIATE(H, A)                                                                       \
  template void swiglu_forward<H, A>(const H*, const wide_t<A>*, A*, int64_t, int64_t, int64_t);         \
  template void swiglu_backward<H, A>(const H*, const A*, const wide_t<A>*, A*, A*, wide_t<A>*, int64_t, \
                                      int64_t, int64_t)
CONCLAVE_INSTANTIATE(float, float);
CONCLAVE_INSTANTIATE(double, double);
CONCLAVE_INSTANTIATE(bfloat16, bfloat16);
CONCLAVE_INSTANTIATE(bfloat16, float);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels
