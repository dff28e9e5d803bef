// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/groups.h"

#include <utility>

namespace conclave::comm {

RankGroups make_groups(std::shared_ptr<Communicator> world, const MeshSizes& sizes) {
  const Mesh mesh(world->size(), sizes);
  const auto group = [&](Axis axis) -> std::shared_ptr<Communicator> {
    if (mesh.size(axis) == 1) return make_single_communicator();
    return world->split(mesh.group(world->rank(), axis).front(), world->rank());
  };
  RankGroups groups;
  groups.data = group(Axis::kData);
  groups.expert = group(Axis::kExpert);
  groups.expert_data = group(Axis::kExpertData);
  groups.world = std::move(world);
  return groups;
}

RankGroups single_rank() {
  return make_groups(make_single_communicator(), {});
}

}  // namespace conclave::comm
