// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/groups.h"

#include <utility>

#include "conclave/core/error.h"

namespace conclave::comm {

RankGroups make_groups(std::shared_ptr<Communicator> world, const MeshSizes& sizes,
                       const MakeSingle& make_single) {
  const Mesh mesh(world->size(), sizes);
  const auto group = [&](Axis axis) -> std::shared_ptr<Communicator> {
    if (mesh.size(axis) > 1) return world->split(mesh.group(world->rank(), axis).front(), world->rank());
    auto single = make_single();
    for (const auto place : {Place::kHost, Place::kDevice}) {
      CONCLAVE_CHECK(single->takes(place) || !world->takes(place),
                     "make_groups: the communicator of a lone rank does not take all that `world` takes");
    }
    return single;
  };
  RankGroups groups;
  groups.data = group(Axis::kData);
  groups.expert = group(Axis::kExpert);
  groups.expert_data = group(Axis::kExpertData);
  groups.world = std::move(world);
  return groups;
}

RankGroups single_rank(const MakeSingle& make_single) {
  return make_groups(make_single(), {}, make_single);
}

}  // namespace conclave::comm
