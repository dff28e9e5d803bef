// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>

#include "conclave/config/problems.h"
#include "conclave/train/run_config.h"

// Conditions over several sections of a configuration. `root` is the tree as written: a problem stands where
// the nearest key of its section was given.
namespace conclave::train {

// A router's promises against the model's objective and the data.
void check_router(const RunConfig& config, const moe::Registry& registry, const config::Node& root,
                  config::Problems& problems);
// Auxiliary losses against what the router records, and against each other.
void check_aux_losses(const model::MoeOptions& moe, const moe::Registry& registry, const config::Node& root,
                      config::Problems& problems);
// Experts, batch and, where it is known, the number of ranks that were started against `parallelism`.
void check_layout(const RunConfig& config, const moe::Registry& registry, std::optional<int64_t> num_ranks,
                  const config::Node& root, config::Problems& problems);

// The node of a key, or of the innermost section around it that was written.
const config::Node* nearest_written(const config::Node& root, std::initializer_list<const char*> path);

}  // namespace conclave::train
