// SPDX-License-Identifier: Apache-2.0
// Copies of rows. Bound by memory: a warp moves a tile of a row in steps of 512 bytes, and several of them
// are under way before the first is needed.
#include "device/pack.h"
#include "permute.h"

namespace conclave::kernels::cuda {

namespace {

template <class In, class Out, int N>
__device__ Pack<Out, N> converted(const Pack<In, N>& in) {
  if constexpr (std::is_same_v<In, Out>) {
    return in;
  } else {
    Pack<Out, N> out;
    for (int v = 0; v < N; ++v) store(out.values[v], load(in.values[v]));
    return out;
  }
}

constexpr int kCopySteps = 4;

// Reads each row once and writes it to all its places.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    permute_kernel(const T* x, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
                   int64_t units, int64_t tiles) {
  const auto tile = Tile<N, kCopySteps>::mine(tiles, kWarps);
  if (tile.row >= units) return;
  Pack<T, N> values[kCopySteps];
#pragma unroll
  for (int s = 0; s < kCopySteps; ++s) {
    if (tile.at(s) < width) values[s] = load_pack<N>(x + tile.row * width + tile.at(s));
  }
  const int32_t end = offsets[tile.row + 1];
  for (int32_t j = offsets[tile.row]; j < end; ++j) {
    const int64_t row = row_of[j];
    if (row < 0) continue;
#pragma unroll
    for (int s = 0; s < kCopySteps; ++s) {
      if (tile.at(s) < width) store_pack(out + row * width + tile.at(s), values[s]);
    }
  }
}

template <class In, class Out, int N>
__global__ void __launch_bounds__(kThreads) gather_kernel(const In* source, const int32_t* index, Out* out,
                                                          int64_t width, int64_t rows, int64_t tiles) {
  const auto tile = Tile<N, kCopySteps>::mine(tiles, kWarps);
  if (tile.row >= rows) return;
  const In* from = source + static_cast<int64_t>(index[tile.row]) * width;
  Pack<In, N> values[kCopySteps];
#pragma unroll
  for (int s = 0; s < kCopySteps; ++s) {
    if (tile.at(s) < width) values[s] = load_pack<N>(from + tile.at(s));
  }
#pragma unroll
  for (int s = 0; s < kCopySteps; ++s) {
    if (tile.at(s) < width) {
      store_pack(out + tile.row * width + tile.at(s), converted<In, Out, N>(values[s]));
    }
  }
}

}  // namespace

template <class T>
Status permute_rows(const T* x, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
                    int64_t units, Stream stream) {
  return packed<kPackOf<T>>(width, {x, out}, [&]<int N>(std::integral_constant<int, N>) {
    return launch(Tile<N, kCopySteps>::grid(units, width, kWarps, stream), permute_kernel<T, N>, x, offsets,
                  row_of, out, width, units, Tile<N, kCopySteps>::per_row(width));
  });
}

template <class In, class Out>
Status gather_rows(const In* source, const int32_t* index, Out* out, int64_t width, int64_t rows,
                   Stream stream) {
  return packed<kPackOf<In, Out>>(width, {source, out}, [&]<int N>(std::integral_constant<int, N>) {
    return launch(Tile<N, kCopySteps>::grid(rows, width, kWarps, stream), gather_kernel<In, Out, N>, source,
                  index, out, width, rows, Tile<N, kCopySteps>::per_row(width));
  });
}

#define CONCLAVE_INSTANTIATE(In, Out) \
  template Status gather_rows<In, Out>(const In*, const int32_t*, Out*, int64_t, int64_t, Stream)
CONCLAVE_INSTANTIATE(float, float);
CONCLAVE_INSTANTIATE(double, double);
CONCLAVE_INSTANTIATE(bfloat16, bfloat16);
CONCLAVE_INSTANTIATE(bfloat16, float);
CONCLAVE_INSTANTIATE(float, bfloat16);
#undef CONCLAVE_INSTANTIATE
#define CONCLAVE_INSTANTIATE(T) \
  template Status permute_rows<T>(const T*, const int32_t*, const int32_t*, T*, int64_t, int64_t, Stream)
CONCLAVE_INSTANTIATE(float);
CONCLAVE_INSTANTIATE(double);
CONCLAVE_INSTANTIATE(bfloat16);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels::cuda
