// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "conclave/moe/forward_context.h"

// The defined tensors of a trace, always in the same order.
namespace conclave::moe {

// What a loss may take a gradient of.
std::vector<at::Tensor*> differentiable(RouterTrace& trace);

// What a forward pass computed beside: choices, maps and counts, without the units, which it was given.
std::vector<at::Tensor*> beside_differentiable(RouterTrace& trace);

}  // namespace conclave::moe
