// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "conclave/moe/stats.h"
#include "conclave/train/metrics.h"
#include "conclave/train/run_config.h"

namespace conclave::train {

// One MoE layer in one step.
struct LayerRouting {
  const moe::RoutingCounts* counts = nullptr;
  std::optional<double> bias_norm = {};  // of the selection bias, where an updater moves one
};

// `brief`: means over the layers; `full`: also "moe/NAME_layer_I" for each, I counting the MoE layers from 0;
// `off`: nothing. Layers whose gate counts no pairs (Soft MoE, mixtures) have no load and are left out.
std::vector<Metric> moe_metrics(std::span<const LayerRouting> layers, MoeDetail detail);

}  // namespace conclave::train
