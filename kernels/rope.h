// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "bfloat16.h"
#include "device/status.h"

// Rotary position embedding (Su et al., 2021) in the half-split layout of Hugging Face, for tokens [begin,
// end). x, out [tokens, heads, 2 * half]; cosine, sine [tokens, half]; out and x may be the same memory. With
// `direction` -1 the rotation goes back, which is also the gradient. T: float, double, bfloat16.
namespace conclave::kernels {

template <class T>
void rope(const T* x, const wide_t<T>* cosine, const wide_t<T>* sine, T* out, int64_t heads, int64_t half,
          int direction, int64_t begin, int64_t end);

template <class T>
void rope_ref(const T* x, const wide_t<T>* cosine, const wide_t<T>* sine, T* out, int64_t heads, int64_t half,
              int direction, int64_t begin, int64_t end);

namespace cuda {

template <class T>
Status rope(const T* x, const wide_t<T>* cosine, const wide_t<T>* sine, T* out, int64_t heads, int64_t half,
            int direction, int64_t tokens, Stream stream);

}  // namespace cuda

}  // namespace conclave::kernels
