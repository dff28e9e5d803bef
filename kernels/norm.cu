// SPDX-License-Identifier: Apache-2.0
// Bound by memory. Forward: one warp a row, which it reads twice, the second time from the cache. Backward:
// one block a group of rows, each thread keeping the weight gradient of its own columns in shared memory.
#include "norm.h"

#include "device/pack.h"
#include "device/reduce.h"

namespace conclave::kernels::cuda {

namespace {

constexpr int64_t kMaxPartials = 512;

__device__ inline float inverse_root(float x) {
  return 1.0f / sqrtf(x);
}
__device__ inline double inverse_root(double x) {
  return 1.0 / sqrt(x);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const T* x, const wide_t<T>* weight, wide_t<T> eps, T* out, wide_t<T>* inv_rms,
                   int64_t width, int64_t rows) {
  using W = wide_t<T>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp_in_block();
  if (row >= rows) return;
  W sum = 0;
#pragma unroll 4
  for (int64_t i = lane() * N; i < width; i += kWarp * N) {
    const auto values = load_pack<N>(x + row * width + i);
#pragma unroll
    for (int v = 0; v < N; ++v) sum += load(values.values[v]) * load(values.values[v]);
  }
  const W inv = inverse_root(warp_sum(sum) / static_cast<W>(width) + eps);
  if (lane() == 0) inv_rms[row] = inv;
#pragma unroll 2
  for (int64_t i = lane() * N; i < width; i += kWarp * N) {
    const auto values = load_pack<N>(x + row * width + i);
    Pack<T, N> result;
#pragma unroll
    for (int v = 0; v < N; ++v) store(result.values[v], load(values.values[v]) * inv * weight[i + v]);
    store_pack(out + row * width + i, result);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const T* x, const wide_t<T>* weight, const wide_t<T>* inv_rms, const T* d_out, T* d_x,
                    wide_t<T>* partials, int64_t width, int64_t rows) {
  using W = wide_t<T>;
  W* d_weight = dynamic_shared<W>();  // [width]; a thread reads and writes its own columns only
  const int64_t first = static_cast<int64_t>(threadIdx.x) * N, stride = int64_t{kThreads} * N;
  for (int64_t i = first; i < width; i += stride) {
    for (int v = 0; v < N; ++v) d_weight[i + v] = 0;
  }
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* x_row = x + row * width;
    const T* d_row = d_out + row * width;
    const W inv = inv_rms[row];
    W dot = 0;
    for (int64_t i = first; i < width; i += stride) {
      const auto values = load_pack<N>(x_row + i), gradients = load_pack<N>(d_row + i);
#pragma unroll
      for (int v = 0; v < N; ++v) {
        const W product = load(gradients.values[v]) * load(values.values[v]);
        dot += product * weight[i + v];
        d_weight[i + v] += product * inv;
      }
    }
    const W pull = block_sum<kWarps>(dot) * inv * inv / static_cast<W>(width);
    for (int64_t i = first; i < width; i += stride) {
      const auto values = load_pack<N>(x_row + i), gradients = load_pack<N>(d_row + i);
      Pack<T, N> result;
#pragma unroll
      for (int v = 0; v < N; ++v) {
        store(result.values[v],
              inv * (load(gradients.values[v]) * weight[i + v] - load(values.values[v]) * pull));
      }
      store_pack(d_x + row * width + i, result);
    }
  }
  for (int64_t i = first; i < width; i += stride) {
    for (int v = 0; v < N; ++v) partials[blockIdx.x * width + i + v] = d_weight[i + v];
  }
}

}  // namespace

template <class T>
Status rms_norm_forward(const T* x, const wide_t<T>* weight, double eps, T* out, wide_t<T>* inv_rms,
                        int64_t width, int64_t rows, Stream stream) {
  const Grid grid{.blocks = ceil_div(rows, kWarps), .threads = kThreads, .stream = stream};
  return packed<kPackOf<T>>(width, {x, out}, [&]<int N>(std::integral_constant<int, N>) {
    return launch(grid, forward_kernel<T, N>, x, weight, static_cast<wide_t<T>>(eps), out, inv_rms, width,
                  rows);
  });
}

int64_t rms_norm_partials(int64_t rows) {
  return std::min(rows, kMaxPartials);
}

template <class T>
Status rms_norm_backward(const T* x, const wide_t<T>* weight, const wide_t<T>* inv_rms, const T* d_out,
                         T* d_x, wide_t<T>* d_weight, wide_t<T>* partials, int64_t width, int64_t rows,
                         Stream stream) {
  if (width > kMaxNormWidth) return Status::kInvalid;
  const Grid grid{.blocks = rms_norm_partials(rows),
                  .threads = kThreads,
                  .shared_bytes = static_cast<size_t>(width) * sizeof(wide_t<T>),
                  .stream = stream};
  const auto status = packed<kPackOf<T>>(width, {x, d_out, d_x}, [&]<int N>(std::integral_constant<int, N>) {
    return launch(grid, backward_kernel<T, N>, x, weight, inv_rms, d_out, d_x, partials, width, rows);
  });
  if (status != Status::kOk) return status;
  return launch_sum_partials(partials, grid.blocks, d_weight, width, /*add=*/true, stream);
}

#define CONCLAVE_INSTANTIATE(T)                                                                             \
  template Status rms_norm_forward<T>(const T*, const wide_t<T>*, double, T*, wide_t<T>*, int64_t, int64_t, \
                                      Stream);                                                              \
  template Status rms_norm_backward<T>(const T*, const wide_t<T>*, const wide_t<T>*, const T*, T*,          \
                                       wide_t<T>*, wide_t<T>*, int64_t, int64_t, Stream)
CONCLAVE_INSTANTIATE(float);
CONCLAVE_INSTANTIATE(double);
CONCLAVE_INSTANTIATE(bfloat16);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels::cuda
