// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>

#include "conclave/comm/groups.h"
#include "conclave/comm/launch.h"
#include "conclave/config/node.h"
#include "conclave/core/log.h"
#include "conclave/train/machine_options.h"

// How `conclave train` becomes one rank of several.
namespace conclave::cli {

// Messages on stderr: all of the first rank; of the others warnings and errors, with their number.
Log rank_log(const std::optional<comm::Launch>& launch);

// Meets the other ranks and makes the groups, whose buffers may lie where the run computes. Without a launch
// there is one rank. Cores that the launcher gave to several ranks of a node without OMP_NUM_THREADS are
// shared out evenly.
comm::RankGroups connect_ranks(const std::optional<comm::Launch>& launch, const train::RunConfig& config,
                               const Log& log);

// Throws on every rank, with the differences, when one read another configuration than the first rank did.
void refuse_different_configs(comm::Communicator& world, const config::Node& config);

}  // namespace conclave::cli
