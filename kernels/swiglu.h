// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

// SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020): act = silu(gate) * up, silu(x) = x / (1 +
// e^-x). Rows are [gate | up], 2 * width values each. All functions work on the rows [begin, end). T: float,
// double.
namespace conclave::kernels {

// act [rows, width] from h [rows, 2 * width].
template <class T>
void swiglu_forward(const T* h, T* act, int64_t width, int64_t begin, int64_t end);

// Backward through y = scale * (act W2) with the product act W2 not kept (SonicMoE identity, spec of
// ops/expert_mlp.h). In:  h [rows, 2 * width]; d_act [rows, width], the gradient of y times W2^T, before it
// meets the scale;
//      scale [rows], or null for 1.
// Out: d_h [rows, 2 * width]; scaled_act [rows, width] = scale * act, for the gradient of W2;
//      d_scale [rows] = <d_act, act>, or null.
template <class T>
void swiglu_backward(const T* h, const T* d_act, const T* scale, T* d_h, T* scaled_act, T* d_scale,
                     int64_t width, int64_t begin, int64_t end);

// Plain-loop twins in double arithmetic.
template <class T>
void swiglu_forward_ref(const T* h, T* act, int64_t width, int64_t begin, int64_t end);
template <class T>
void swiglu_backward_ref(const T* h, const T* d_act, const T* scale, T* d_h, T* scaled_act, T* d_scale,
                         int64_t width, int64_t begin, int64_t end);

}  // namespace conclave::kernels
