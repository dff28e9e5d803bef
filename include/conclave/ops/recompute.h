// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace conclave::ops {

// Calls body(x, false) without keeping what its backward would need; the backward pass calls body(x, true) to
// get it back (activation checkpointing: Chen et al., 2016). Only x is kept, beside what the body itself
// holds on to. The second call must return the same tensors in the same order; parameters that the body uses
// get their gradients through it. x must require a gradient.
using RecomputedBody = std::function<std::vector<at::Tensor>(const at::Tensor& x, bool again)>;
std::vector<at::Tensor> recompute(const at::Tensor& x, RecomputedBody body);

}  // namespace conclave::ops
