// SPDX-License-Identifier: Apache-2.0
#include "permute.h"

#include <cstddef>
#include <cstring>

namespace conclave::kernels {

template <class T>
void gather_rows(const T* source, const int32_t* index, T* out, int64_t width, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    std::memcpy(out + i * width, source + static_cast<int64_t>(index[i]) * width,
                static_cast<std::size_t>(width) * sizeof(T));
  }
}

template <class T>
void sum_rows(const T* rows, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
              int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    T* __restrict target = out + unit * width;
    std::memset(target, 0, static_cast<std::size_t>(width) * sizeof(T));
    for (int32_t j = offsets[unit]; j < offsets[unit + 1]; ++j) {
      if (row_of[j] < 0) continue;
      const T* __restrict row = rows + static_cast<int64_t>(row_of[j]) * width;
      for (int64_t i = 0; i < width; ++i) target[i] += row[i];
    }
  }
}

template void gather_rows<float>(const float*, const int32_t*, float*, int64_t, int64_t, int64_t);
template void gather_rows<double>(const double*, const int32_t*, double*, int64_t, int64_t, int64_t);
template void sum_rows<float>(const float*, const int32_t*, const int32_t*, float*, int64_t, int64_t,
                              int64_t);
template void sum_rows<double>(const double*, const int32_t*, const int32_t*, double*, int64_t, int64_t,
                               int64_t);

}  // namespace conclave::kernels
