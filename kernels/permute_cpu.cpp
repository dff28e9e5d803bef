// SPDX-License-Identifier: Apache-2.0
#include "permute.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "vector_math.h"

namespace conclave::kernels {

template <class In, class Out>
CONCLAVE_CPU_VARIANTS void convert(const In* __restrict in, Out* __restrict out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) store(out[i], load(in[i]));
}

template <class In, class Out>
void gather_rows(const In* source, const int32_t* index, Out* out, int64_t width, int64_t begin,
                 int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const In* row = source + static_cast<int64_t>(index[i]) * width;
    if constexpr (std::is_same_v<In, Out>) {
      std::memcpy(out + i * width, row, static_cast<std::size_t>(width) * sizeof(Out));
    } else {
      convert(row, out + i * width, 0, width);
    }
  }
}

template <class In, class Out>
CONCLAVE_CPU_VARIANTS void sum_rows(const In* rows, const int32_t* offsets, const int32_t* row_of,
                                    const wide_t<In>* weight, Out* out, int64_t width, int64_t begin,
                                    int64_t end) {
  constexpr int64_t kBlock = 256;  // values summed at a time, in registers and first-level cache
  wide_t<In> sum[kBlock];
  for (int64_t unit = begin; unit < end; ++unit) {
    for (int64_t first = 0; first < width; first += kBlock) {
      const int64_t count = std::min(kBlock, width - first);
      for (int64_t i = 0; i < count; ++i) sum[i] = 0;
      for (int32_t j = offsets[unit]; j < offsets[unit + 1]; ++j) {
        if (row_of[j] < 0) continue;
        const In* __restrict row = rows + static_cast<int64_t>(row_of[j]) * width + first;
        if (weight) {
          const wide_t<In> w = weight[j];
          for (int64_t i = 0; i < count; ++i) sum[i] += w * load(row[i]);
        } else {
          for (int64_t i = 0; i < count; ++i) sum[i] += load(row[i]);
        }
      }
      Out* __restrict target = out + unit * width + first;
      for (int64_t i = 0; i < count; ++i) store(target[i], sum[i]);
    }
  }
}

template <class T>
void permute_rows(const T* x, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
                  int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    for (int32_t j = offsets[unit]; j < offsets[unit + 1]; ++j) {
      if (row_of[j] < 0) continue;
      std::memcpy(out + static_cast<int64_t>(row_of[j]) * width, x + unit * width,
                  static_cast<std::size_t>(width) * sizeof(T));
    }
  }
}

#define CONCLAVE_INSTANTIATE(In, Out)                                                                 \
  template void convert<In, Out>(const In*, Out*, int64_t, int64_t);                                  \
  template void gather_rows<In, Out>(const In*, const int32_t*, Out*, int64_t, int64_t, int64_t);     \
  template void sum_rows<In, Out>(const In*, const int32_t*, const int32_t*, const wide_t<In>*, Out*, \
                                  int64_t, int64_t, int64_t)
CONCLAVE_INSTANTIATE(float, float);
CONCLAVE_INSTANTIATE(double, double);
CONCLAVE_INSTANTIATE(bfloat16, bfloat16);
CONCLAVE_INSTANTIATE(bfloat16, float);
CONCLAVE_INSTANTIATE(float, bfloat16);
#undef CONCLAVE_INSTANTIATE
#define CONCLAVE_INSTANTIATE(T) \
  template void permute_rows<T>(const T*, const int32_t*, const int32_t*, T*, int64_t, int64_t, int64_t)
CONCLAVE_INSTANTIATE(float);
CONCLAVE_INSTANTIATE(double);
CONCLAVE_INSTANTIATE(bfloat16);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels
