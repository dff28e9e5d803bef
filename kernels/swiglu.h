// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "bfloat16.h"
#include "device/status.h"

// SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020): act = silu(gate) * up, silu(x) = x / (1 +
// e^-x). Rows are [gate | up], 2 * width values each. All functions work on the rows [begin, end).
// H stores the pre-activations, A everything else: (float, float), (double, double), (bfloat16, bfloat16),
// (bfloat16, float). S = wide_t<A> stores scales.
namespace conclave::kernels {

// scale * act [rows, width] from h [rows, 2 * width]. Weights of rows cost no pass of their own so.
//      scale [rows], or null for 1.
template <class H, class A>
void swiglu_forward(const H* h, const wide_t<A>* scale, A* act, int64_t width, int64_t begin, int64_t end);

// Backward through y = (scale * act) W2 with the product act W2 not kept (SonicMoE identity, spec of
// ops/expert_mlp.h). In:  h [rows, 2 * width]; d_act [rows, width], the gradient of y times W2^T, before it
// meets the scale;
//      scale [rows], or null for 1.
// Out: d_h [rows, 2 * width]; scaled_act [rows, width] = scale * act, for the gradient of W2;
//      d_scale [rows] = <d_act, act>, or null.
template <class H, class A>
void swiglu_backward(const H* h, const A* d_act, const wide_t<A>* scale, A* d_h, A* scaled_act,
                     wide_t<A>* d_scale, int64_t width, int64_t begin, int64_t end);

// Plain-loop twins in double arithmetic.
template <class H, class A>
void swiglu_forward_ref(const H* h, const wide_t<A>* scale, A* act, int64_t width, int64_t begin,
                        int64_t end);
template <class H, class A>
void swiglu_backward_ref(const H* h, const A* d_act, const wide_t<A>* scale, A* d_h, A* scaled_act,
                         wide_t<A>* d_scale, int64_t width, int64_t begin, int64_t end);

namespace cuda {

// All rows, on device memory.
template <class H, class A>
Status swiglu_forward(const H* h, const wide_t<A>* scale, A* act, int64_t width, int64_t rows, Stream stream);
template <class H, class A>
Status swiglu_backward(const H* h, const A* d_act, const wide_t<A>* scale, A* d_h, A* scaled_act,
                       wide_t<A>* d_scale, int64_t width, int64_t rows, Stream stream);

}  // namespace cuda

}  // namespace conclave::kernels
