// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
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

// Makes the communicator of a rank that is alone, in a run or in a group.
using MakeSingle = std::function<std::shared_ptr<Communicator>()>;

// Makes the groups of the mesh, in the same order on every rank. Called by all ranks of `world`, once, before
// training starts. A group of one rank is made by `make_single`, without the others; it has to take buffers
// wherever `world` takes them (make_single_with_device() where there is a device).
RankGroups make_groups(std::shared_ptr<Communicator> world, const MeshSizes& sizes,
                       const MakeSingle& make_single = make_single_communicator);

// A run of one rank.
RankGroups single_rank(const MakeSingle& make_single = make_single_communicator);

}  // namespace conclave::comm
