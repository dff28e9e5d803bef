// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "conclave/moe/routers/topk.h"

// Small parts that several routers share.
namespace conclave::moe {

// YAML spellings of NonFinitePolicy.
const std::vector<std::pair<std::string, NonFinitePolicy>>& non_finite_names();

// The logits with non-finite values refused (Error of kind kDiverged, naming the layer), or replaced by -inf:
// a score of 0 that is never selected.
at::Tensor checked_logits(const at::Tensor& logits_UE, NonFinitePolicy policy, int layer);

at::Tensor int_tensor(const std::vector<int32_t>& values);  // [n] int32

}  // namespace conclave::moe
