// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>

#include "conclave/moe/layer.h"
#include "conclave/moe/losses/losses.h"

// Layers and losses out of plain structs, for programs that link the library and have no YAML;
// docs/library.md shows one.
//
// Threads: `run` and `forward` of one layer may be called from several threads at once, each with a
// ForwardContext of its own, while nobody writes the parameters (an optimizer step, `to`, torch::load).
// Nothing here has global state: no seed, no default dtype, no number of threads is read or set, and equal
// arguments give equal results.
namespace conclave::moe {

// Builds the router of a layer: [](const RouterShape& s) { return make_topk_router({.top_k = 2}, s); }
using MakeRouter = std::function<std::shared_ptr<Router>(const RouterShape& shape)>;

// What the router of such a layer is built for: fp32, or fp64 in an fp64 layer.
RouterShape router_shape(const MoeLayerOptions& options);

// A layer with initial values: N(0, initializer_range^2) by (seed, name of the parameter), the same for every
// dtype up to rounding. Throws Error where width, number of experts or expert width is not positive.
std::shared_ptr<MoeLayer> make_moe_layer(const MoeLayerOptions& options, const MakeRouter& make_router,
                                         uint64_t seed, double initializer_range = 0.02);

// AuxLoss::share of a layer's trace is to be multiplied by AuxLoss::weight and added to the objective.
std::unique_ptr<AuxLoss> make_load_balancing_loss(const LoadBalancingOptions& options);
std::unique_ptr<AuxLoss> make_z_loss(const ZLossOptions& options);

}  // namespace conclave::moe
