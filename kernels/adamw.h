// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "bfloat16.h"
#include "device/status.h"

namespace conclave::kernels {

struct AdamWStep {
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  double bias_correction1 = 1, bias_correction2 = 1;  // 1 - beta^step
  double grad_scale = 1;                              // gradient times this first: clipping
};

// One pass of AdamW (Loshchilov and Hutter, 2019) over the elements [begin, end):
//   p *= 1 - lr * weight_decay;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
//   p -= lr * (m / bias_correction1) / (sqrt(v / bias_correction2) + eps).
template <class T>
void adamw(T* p, const T* g, T* m, T* v, const AdamWStep& step, int64_t begin, int64_t end);

// Plain-loop twin in double arithmetic, and with what the device adds: gradients may be stored in less, and
// `copy` (null: none) receives the new p rounded, for the products of the next pass. (T, G): (float, float),
// (float, bfloat16), (double, double).
template <class T, class G>
void adamw_ref(T* p, const G* g, T* m, T* v, bfloat16* copy, const AdamWStep& step, int64_t begin,
               int64_t end);

namespace cuda {

template <class T, class G>
Status adamw(T* p, const G* g, T* m, T* v, bfloat16* copy, const AdamWStep& step, int64_t count,
             Stream stream);

}  // namespace cuda

}  // namespace conclave::kernels
