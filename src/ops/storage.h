// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "bfloat16.h"
#include "conclave/core/error.h"

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

// body(T{}) with T = float, double or kernels::bfloat16.
template <class Body>
void dispatch_storage(const at::Tensor& t, const char* what, Body body) {
  CONCLAVE_CHECK(t.device().is_cpu(),
                 fmt::format("{}: expected a CPU tensor, got {}", what, t.device().str()));
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

// The type of statistics and of parameters beside values stored as `stored`.
inline c10::ScalarType wide_dtype(c10::ScalarType stored) {
  return stored == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace conclave::ops
