// SPDX-License-Identifier: Apache-2.0
// Sums of the rows of a unit, and their gradient. Bound by memory: four rows are under way before the first
// is added.
#include "device/pack.h"
#include "device/reduce.h"
#include "permute.h"

namespace conclave::kernels::cuda {

namespace {

constexpr int kSumSteps = 2, kRowsAtOnce = 4;

template <class In, class Out, int N>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const In* rows, const int32_t* offsets, const int32_t* row_of, const wide_t<In>* weight,
               Out* out, int64_t width, int64_t units, int64_t tiles) {
  using W = wide_t<In>;
  const auto tile = Tile<N, kSumSteps>::mine(tiles, kWarps);
  if (tile.row >= units) return;
  W sum[kSumSteps][N] = {};
  const int32_t end = offsets[tile.row + 1];
  for (int32_t j = offsets[tile.row]; j < end; j += kRowsAtOnce) {
    int64_t row[kRowsAtOnce];
    Pack<In, N> values[kRowsAtOnce][kSumSteps];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      row[r] = j + r < end ? row_of[j + r] : -1;
#pragma unroll
      for (int s = 0; s < kSumSteps; ++s) {
        if (row[r] >= 0 && tile.at(s) < width) {
          values[r][s] = load_pack<N>(rows + row[r] * width + tile.at(s));
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      if (row[r] < 0) continue;
      const W w = weight ? weight[j + r] : W(1);
#pragma unroll
      for (int s = 0; s < kSumSteps; ++s) {
        if (tile.at(s) >= width) continue;
#pragma unroll
        for (int v = 0; v < N; ++v) sum[s][v] += w * load(values[r][s].values[v]);
      }
    }
  }
#pragma unroll
  for (int s = 0; s < kSumSteps; ++s) {
    if (tile.at(s) >= width) continue;
    Pack<Out, N> result;
#pragma unroll
    for (int v = 0; v < N; ++v) store(result.values[v], sum[s][v]);
    store_pack(out + tile.row * width + tile.at(s), result);
  }
}

// One warp a pair: the gradient of a unit is read once for each of its pairs, which stand side by side and
// find it in the cache.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    combine_backward_kernel(const T* d_out, const T* rows, const int32_t* unit, const int32_t* row_of,
                            const wide_t<T>* weight, T* d_rows, wide_t<T>* d_weight, int64_t width,
                            int64_t pairs) {
  using W = wide_t<T>;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kWarps + warp_in_block();
  if (pair >= pairs) return;
  const int64_t row = row_of[pair];
  const W w = weight[pair];
  W dot = 0;
  if (row >= 0) {
    const T* from = d_out + static_cast<int64_t>(unit[pair]) * width;
#pragma unroll 2
    for (int64_t i = lane() * N; i < width; i += kWarp * N) {
      const auto d = load_pack<N>(from + i), y = load_pack<N>(rows + row * width + i);
      Pack<T, N> result;
#pragma unroll
      for (int v = 0; v < N; ++v) {
        dot += load(d.values[v]) * load(y.values[v]);
        store(result.values[v], w * load(d.values[v]));
      }
      store_pack(d_rows + row * width + i, result);
    }
  }
  dot = warp_sum(dot);
  if (lane() == 0) d_weight[pair] = dot;
}

}  // namespace

template <class In, class Out>
Status sum_rows(const In* rows, const int32_t* offsets, const int32_t* row_of, const wide_t<In>* weight,
                Out* out, int64_t width, int64_t units, Stream stream) {
  return packed<kPackOf<In, Out>>(width, {rows, out}, [&]<int N>(std::integral_constant<int, N>) {
    return launch(Tile<N, kSumSteps>::grid(units, width, kWarps, stream), sum_kernel<In, Out, N>, rows,
                  offsets, row_of, weight, out, width, units, Tile<N, kSumSteps>::per_row(width));
  });
}

template <class T>
Status combine_backward(const T* d_out, const T* rows, const int32_t* unit, const int32_t* row_of,
                        const wide_t<T>* weight, T* d_rows, wide_t<T>* d_weight, int64_t width, int64_t pairs,
                        Stream stream) {
  const Grid grid{.blocks = ceil_div(pairs, kWarps), .threads = kThreads, .stream = stream};
  return packed<kPackOf<T>>(width, {d_out, rows, d_rows}, [&]<int N>(std::integral_constant<int, N>) {
    return launch(grid, combine_backward_kernel<T, N>, d_out, rows, unit, row_of, weight, d_rows, d_weight,
                  width, pairs);
  });
}

#define CONCLAVE_INSTANTIATE(In, Out)                                                                   \
  template Status sum_rows<In, Out>(const In*, const int32_t*, const int32_t*, const wide_t<In>*, Out*, \
                                    int64_t, int64_t, Stream)
CONCLAVE_INSTANTIATE(float, float);
CONCLAVE_INSTANTIATE(double, double);
CONCLAVE_INSTANTIATE(bfloat16, bfloat16);
CONCLAVE_INSTANTIATE(bfloat16, float);
CONCLAVE_INSTANTIATE(float, bfloat16);
#undef CONCLAVE_INSTANTIATE
#define CONCLAVE_INSTANTIATE(T)                                                                             \
  template Status combine_backward<T>(const T*, const T*, const int32_t*, const int32_t*, const wide_t<T>*, \
                                      T*, wide_t<T>*, int64_t, int64_t, Stream)
CONCLAVE_INSTANTIATE(float);
CONCLAVE_INSTANTIATE(double);
CONCLAVE_INSTANTIATE(bfloat16);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels::cuda
