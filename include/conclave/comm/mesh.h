// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <vector>

namespace conclave::comm {

// How the ranks of a run are cut into groups: two meshes over one list of ranks, pipeline outermost in both.
//   attention  rank = ((pp * DP  + dp) * CP + cp) * TP  + tp
//   experts    rank = ((pp * EDP + edp) * EP + ep) * ETP + etp
// TP * CP * DP = ETP * EP * EDP = world / PP. DP and EDP follow from the others.
struct MeshSizes {
  int tensor = 1, context = 1, pipeline = 1;  // TP, CP, PP
  int expert_tensor = 1, expert = 1;          // ETP, EP
};

enum class Axis { kTensor, kContext, kData, kPipeline, kExpertTensor, kExpert, kExpertData };

class Mesh {
 public:
  // Throws Error that names the nearest legal values when the sizes do not divide the number of ranks.
  Mesh(int world_size, const MeshSizes& sizes);

  int world_size() const { return world_size_; }
  int size(Axis axis) const { return side(axis).size; }
  // Place of a rank on an axis: its number inside its group of that axis.
  int coordinate(int rank, Axis axis) const;
  // The ranks that differ from `rank` in this axis alone, itself included, ascending.
  std::vector<int> group(int rank, Axis axis) const;
  // All groups of an axis, ordered by their lowest rank: a partition of the ranks.
  std::vector<std::vector<int>> groups(Axis axis) const;

 private:
  struct Side {
    int stride = 1;  // ranks between neighbours
    int size = 1;
  };
  const Side& side(Axis axis) const { return sides_[static_cast<size_t>(axis)]; }

  int world_size_;
  std::vector<Side> sides_;
};

}  // namespace conclave::comm
