// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <type_traits>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "adamw.h"
#include "bfloat16.h"
#include "conclave/core/error.h"
#include "conclave/ops/adamw.h"
#include "conclave/ops/kernel_table.h"
#include "router.h"

// From tensors to the storage types of kernels.
namespace conclave::ops {

template <class T>
const T* const_data(const at::Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* mutable_data(const at::Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}
// Null where the tensor is undefined.
template <class T>
T* optional_data(const at::Tensor& t) {
  return t.defined() ? mutable_data<T>(t) : nullptr;
}

// body(T{}) with T = float, double or kernels::bfloat16.
template <class Body>
void dispatch_storage(const at::Tensor& t, const char* what, Body body) {
  switch (t.scalar_type()) {
    case at::kFloat:
      return body(float{});
    case at::kDouble:
      return body(double{});
    case at::kBFloat16:
      return body(kernels::bfloat16{});
    default:
      throw Error(fmt::format("{}: expected float32, float64 or bfloat16, got {}", what,
                              c10::toString(t.scalar_type())));
  }
}

[[noreturn]] inline void no_path(const char* what, const at::Tensor& in, c10::ScalarType out) {
  throw Error(
      fmt::format("{}: no path from {} to {}", what, c10::toString(in.scalar_type()), c10::toString(out)));
}

// body(In{}, Out{}) for the pairs of storage types that rows are moved between.
template <class Body>
void dispatch_pair(const at::Tensor& in, c10::ScalarType out, Body body) {
  dispatch_storage(in, "moving rows", [&]<class In>(In) {
    if (in.scalar_type() == out) return body(In{}, In{});
    if constexpr (std::is_same_v<In, kernels::bfloat16>) {
      if (out == at::kFloat) return body(In{}, float{});
    } else if constexpr (std::is_same_v<In, float>) {
      if (out == at::kBFloat16) return body(In{}, kernels::bfloat16{});
    }
    no_path("moving rows", in, out);
  });
}

// body(H{}, A{}): pre-activations as stored, the rest in `dtype`.
template <class Body>
void dispatch_activation(const at::Tensor& h, c10::ScalarType dtype, Body body) {
  dispatch_storage(h, "swiglu", [&]<class H>(H) {
    if (h.scalar_type() == dtype) return body(H{}, H{});
    if constexpr (std::is_same_v<H, kernels::bfloat16>) {
      if (dtype == at::kFloat) return body(H{}, float{});
    }
    no_path("swiglu", h, dtype);
  });
}

// The type of statistics and of parameters beside values stored as `stored`.
inline c10::ScalarType wide_dtype(c10::ScalarType stored) {
  return stored == at::kDouble ? at::kDouble : at::kFloat;
}

inline kernels::RouterShape router_shape(const TokenChoice& how, int64_t num_units, int64_t num_experts) {
  return {.tokens = num_units,
          .num_experts = num_experts,
          .top_k = how.top_k,
          .sigmoid = how.sigmoid,
          .normalise = how.normalise,
          .scale = how.scale,
          .num_groups = how.num_groups,
          .topk_groups = how.topk_groups,
          .group_top2 = how.group_top2};
}
template <class T>
kernels::RouterForward<T> router_forward_of(const RouterPass& p) {
  return {.shape = router_shape(p.how, p.logits_UE.size(0), p.logits_UE.size(1)),
          .logits = const_data<T>(p.logits_UE),
          .bias = p.bias_E.defined() ? const_data<float>(p.bias_E) : nullptr,
          .chosen = mutable_data<int32_t>(p.chosen_UK),
          .repeats = p.repeats,
          .weight = mutable_data<T>(p.weight_UK),
          .scores = mutable_data<T>(p.scores_UE),
          .counts = mutable_data<int32_t>(p.counts_E),
          .non_finite = mutable_data<int32_t>(p.non_finite)};
}
template <class T>
kernels::RouterBackward<T> router_backward_of(const RouterGradient& g) {
  return {.shape = router_shape(g.how, g.logits_UE.size(0), g.logits_UE.size(1)),
          .logits = const_data<T>(g.logits_UE),
          .chosen = const_data<int32_t>(g.chosen_UK),
          .d_weight = optional_data<T>(g.d_weight_UK),
          .d_scores = optional_data<T>(g.d_scores_UE),
          .d_logits = mutable_data<T>(g.d_logits_UE)};
}

inline kernels::AdamWStep kernel_step(const AdamWArguments& a) {
  return {.lr = a.lr,
          .beta1 = a.beta1,
          .beta2 = a.beta2,
          .eps = a.eps,
          .weight_decay = a.weight_decay,
          .bias_correction1 = 1.0 - std::pow(a.beta1, static_cast<double>(a.step)),
          .bias_correction2 = 1.0 - std::pow(a.beta2, static_cast<double>(a.step)),
          .grad_scale = a.grad_scale};
}

}  // namespace conclave::ops
