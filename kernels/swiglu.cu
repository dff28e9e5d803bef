// SPDX-License-Identifier: Apache-2.0
// Bound by memory: forward reads 2 and writes 1 value an element, backward reads 3 and writes 3, and the
// gradient of the scale costs no pass of its own.
#include "device/pack.h"
#include "device/reduce.h"
#include "swiglu.h"

namespace conclave::kernels::cuda {

namespace {

constexpr int kSteps = 2;

__device__ inline float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}
__device__ inline double sigmoid(double x) {
  return 1.0 / (1.0 + exp(-x));
}

template <class H, class A, int N>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const H* h, const wide_t<A>* scale, A* act, int64_t width, int64_t rows, int64_t tiles) {
  using W = wide_t<A>;
  const auto tile = Tile<N, kSteps>::mine(tiles, kWarps);
  if (tile.row >= rows) return;
  const H* gate_row = h + tile.row * 2 * width;
  const W factor = scale ? scale[tile.row] : W(1);
  Pack<H, N> gates[kSteps], ups[kSteps];
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    if (tile.at(s) >= width) continue;
    gates[s] = load_pack<N>(gate_row + tile.at(s));
    ups[s] = load_pack<N>(gate_row + width + tile.at(s));
  }
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    if (tile.at(s) >= width) continue;
    Pack<A, N> result;
#pragma unroll
    for (int v = 0; v < N; ++v) {
      const W gate = load(gates[s].values[v]);
      store(result.values[v], factor * gate * sigmoid(gate) * load(ups[s].values[v]));
    }
    store_pack(act + tile.row * width + tile.at(s), result);
  }
}

// One warp a row, since the gradient of the scale is a sum over it.
template <class H, class A, int N>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(const H* h, const A* d_act, const wide_t<A>* scale, A* d_h, A* scaled_act,
                    wide_t<A>* d_scale, int64_t width, int64_t rows) {
  using W = wide_t<A>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp_in_block();
  if (row >= rows) return;
  const W s = scale ? scale[row] : W(1);
  W dot = 0;
#pragma unroll 2
  for (int64_t i = lane() * N; i < width; i += kWarp * N) {
    const auto gates = load_pack<N>(h + row * 2 * width + i);
    const auto ups = load_pack<N>(h + row * 2 * width + width + i);
    const auto gradients = load_pack<N>(d_act + row * width + i);
    Pack<A, N> d_gate, d_up, scaled;
#pragma unroll
    for (int v = 0; v < N; ++v) {
      const W gate = load(gates.values[v]), up = load(ups.values[v]), d = load(gradients.values[v]);
      const W sigma = sigmoid(gate), silu = gate * sigma;
      dot += d * silu * up;
      store(scaled.values[v], s * silu * up);
      store(d_gate.values[v], s * d * up * sigma * (W(1) + gate - silu));
      store(d_up.values[v], s * d * silu);
    }
    store_pack(scaled_act + row * width + i, scaled);
    store_pack(d_h + row * 2 * width + i, d_gate);
    store_pack(d_h + row * 2 * width + width + i, d_up);
  }
  if (!d_scale) return;
  dot = warp_sum(dot);
  if (lane() == 0) d_scale[row] = dot;
}

}  // namespace

template <class H, class A>
Status swiglu_forward(const H* h, const wide_t<A>* scale, A* act, int64_t width, int64_t rows,
                      Stream stream) {
  const auto with = [&]<int N>(std::integral_constant<int, N>) {
    return launch(Tile<N, kSteps>::grid(rows, width, kWarps, stream), forward_kernel<H, A, N>, h, scale, act,
                  width, rows, Tile<N, kSteps>::per_row(width));
  };
  return packed<kPackOf<H, A>>(width, {h, act}, with);
}

template <class H, class A>
Status swiglu_backward(const H* h, const A* d_act, const wide_t<A>* scale, A* d_h, A* scaled_act,
                       wide_t<A>* d_scale, int64_t width, int64_t rows, Stream stream) {
  const auto with = [&]<int N>(std::integral_constant<int, N>) {
    return launch({.blocks = ceil_div(rows, kWarps), .threads = kThreads, .stream = stream},
                  backward_kernel<H, A, N>, h, d_act, scale, d_h, scaled_act, d_scale, width, rows);
  };
  return packed<kPackOf<H, A>>(width, {h, d_act, d_h, scaled_act}, with);
}

#define CONCLAVE_INSTANTIATE(H, A)                                                                         \
  template Status swiglu_forward<H, A>(const H*, const wide_t<A>*, A*, int64_t, int64_t, Stream);          \
  template Status swiglu_backward<H, A>(const H*, const A*, const wide_t<A>*, A*, A*, wide_t<A>*, int64_t, \
                                        int64_t, Stream)
CONCLAVE_INSTANTIATE(float, float);
CONCLAVE_INSTANTIATE(double, double);
CONCLAVE_INSTANTIATE(bfloat16, bfloat16);
CONCLAVE_INSTANTIATE(bfloat16, float);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels::cuda
