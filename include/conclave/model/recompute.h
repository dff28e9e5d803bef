// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>

#include "conclave/moe/forward_context.h"

namespace conclave::model {

// What of a block is computed a second time in the backward pass instead of being kept.
//   kSelective  the feed-forward half with its norm: router scores and the experts' pre-activations
//   kFull       the whole block
enum class Recompute { kNone, kSelective, kFull };

// body(x, context), keeping x and the routing decisions only. The second pass repeats the decisions of the
// first and its traces are thrown away, so every token is routed and counted once. Where no gradient is
// wanted, plain body(x, context).
using BlockBody = std::function<at::Tensor(const at::Tensor& x, moe::ForwardContext& context)>;
at::Tensor recomputed(const at::Tensor& x, moe::ForwardContext& context, BlockBody body);

}  // namespace conclave::model
