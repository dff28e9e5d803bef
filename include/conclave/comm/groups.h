// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "conclave/comm/communicator.h"
#include "conclave/comm/mesh.h"

namespace conclave::comm {

// The ranks of a run as one of them sees them, grouped by what the members share. Each group is a
// communicator of its own, even where two have the same members: gradients are summed while tokens are
// exchanged, and which comes first may differ from rank to rank.
struct RankGroups {
  std::shared_ptr<Communicator> world = {};
  std::shared_ptr<Communicator> data = {};         // hold the same parameters outside the experts
  std::shared_ptr<Communicator> expert = {};       // hold all experts of a layer together, each its own
  std::shared_ptr<Communicator> expert_data = {};  // hold the same experts
};

// Makes the groups of the mesh, in the same order on every rank. Called by all ranks of `world`, once, before
// training starts.
RankGroups make_groups(std::shared_ptr<Communicator> world, const MeshSizes& sizes);

// A run of one rank.
RankGroups single_rank();

}  // namespace conclave::comm
