// SPDX-License-Identifier: Apache-2.0
#include "permute.h"

namespace conclave::kernels {

template <class In, class Out>
void gather_rows_ref(const In* source, const int32_t* index, Out* out, int64_t width, int64_t begin,
                     int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t d = 0; d < width; ++d) store(out[i * width + d], load(source[index[i] * width + d]));
  }
}

template <class In, class Out>
void sum_rows_ref(const In* rows, const int32_t* offsets, const int32_t* row_of, const wide_t<In>* weight,
                  Out* out, int64_t width, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    for (int64_t d = 0; d < width; ++d) {
      wide_t<In> sum = 0;
      for (int32_t j = offsets[unit]; j < offsets[unit + 1]; ++j) {
        if (row_of[j] >= 0) sum += (weight ? weight[j] : 1) * load(rows[row_of[j] * width + d]);
      }
      store(out[unit * width + d], sum);
    }
  }
}

template <class T>
void permute_rows_ref(const T* x, const int32_t* offsets, const int32_t* row_of, T* out, int64_t width,
                      int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    for (int32_t j = offsets[unit]; j < offsets[unit + 1]; ++j) {
      if (row_of[j] < 0) continue;
      for (int64_t d = 0; d < width; ++d) out[row_of[j] * width + d] = x[unit * width + d];
    }
  }
}

template <class T>
void combine_backward_ref(const T* d_out, const T* rows, const int32_t* unit, const int32_t* row_of,
                          const wide_t<T>* weight, T* d_rows, wide_t<T>* d_weight, int64_t width,
                          int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    d_weight[j] = 0;
    if (row_of[j] < 0) continue;
    for (int64_t d = 0; d < width; ++d) {
      const wide_t<T> gradient = load(d_out[unit[j] * width + d]);
      d_weight[j] += gradient * load(rows[row_of[j] * width + d]);
      store(d_rows[row_of[j] * width + d], weight[j] * gradient);
    }
  }
}

#define CONCLAVE_INSTANTIATE(In, Out)                                                                     \
  template void gather_rows_ref<In, Out>(const In*, const int32_t*, Out*, int64_t, int64_t, int64_t);     \
  template void sum_rows_ref<In, Out>(const In*, const int32_t*, const int32_t*, const wide_t<In>*, Out*, \
                                      int64_t, int64_t, int64_t)
CONCLAVE_INSTANTIATE(float, float);
CONCLAVE_INSTANTIATE(double, double);
CONCLAVE_INSTANTIATE(bfloat16, bfloat16);
CONCLAVE_INSTANTIATE(bfloat16, float);
CONCLAVE_INSTANTIATE(float, bfloat16);
#undef CONCLAVE_INSTANTIATE
#define CONCLAVE_INSTANTIATE(T)                                                                     \
  template void permute_rows_ref<T>(const T*, const int32_t*, const int32_t*, T*, int64_t, int64_t, \
                                    int64_t);                                                       \
  template void combine_backward_ref<T>(const T*, const T*, const int32_t*, const int32_t*,         \
                                        const wide_t<T>*, T*, wide_t<T>*, int64_t, int64_t, int64_t)
CONCLAVE_INSTANTIATE(float);
CONCLAVE_INSTANTIATE(double);
CONCLAVE_INSTANTIATE(bfloat16);
#undef CONCLAVE_INSTANTIATE

}  // namespace conclave::kernels
