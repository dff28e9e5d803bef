// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/mesh.h"

#include <string>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::comm {

namespace {

// The divisors of `whole` next below and above `wanted`.
std::string nearest_divisors(int whole, int wanted) {
  int below = 1, above = 0;
  for (int d = 1; d <= whole; ++d) {
    if (whole % d != 0) continue;
    if (d <= wanted) below = d;
    if (d > wanted && above == 0) above = d;
  }
  return above == 0 ? fmt::format("{}", below) : fmt::format("{} or {}", below, above);
}

int quotient(int whole, int part, const char* what, const char* of) {
  CONCLAVE_CHECK(part >= 1, fmt::format("{} is {}, it must be 1 or more", what, part));
  CONCLAVE_CHECK(whole % part == 0, fmt::format("{} = {} does not divide {} = {}; nearest: {}", what, part,
                                                of, whole, nearest_divisors(whole, part)));
  return whole / part;
}

}  // namespace

Mesh::Mesh(int world_size, const MeshSizes& s) : world_size_(world_size) {
  CONCLAVE_CHECK(world_size >= 1, fmt::format("{} ranks", world_size));
  const int stage = quotient(world_size, s.pipeline, "pipeline_parallel_size", "the number of ranks");
  const int after_tensor = quotient(stage, s.tensor, "tensor_parallel_size", "the ranks of a pipeline stage");
  const int data =
      quotient(after_tensor, s.context, "context_parallel_size", "the ranks without tensor_parallel_size");
  const int after_etp =
      quotient(stage, s.expert_tensor, "expert_tensor_parallel_size", "the ranks of a pipeline stage");
  const int expert_data =
      quotient(after_etp, s.expert, "expert_parallel_size", "the ranks without expert_tensor_parallel_size");
  sides_ = {{1, s.tensor},
            {s.tensor, s.context},
            {s.tensor * s.context, data},
            {stage, s.pipeline},
            {1, s.expert_tensor},
            {s.expert_tensor, s.expert},
            {s.expert_tensor * s.expert, expert_data}};
}

int Mesh::coordinate(int rank, Axis axis) const {
  CONCLAVE_CHECK(rank >= 0 && rank < world_size_, fmt::format("rank {} of {}", rank, world_size_));
  return rank / side(axis).stride % side(axis).size;
}

std::vector<int> Mesh::group(int rank, Axis axis) const {
  const auto& [stride, size] = side(axis);
  const int first = rank - coordinate(rank, axis) * stride;
  std::vector<int> ranks;
  for (int i = 0; i < size; ++i) ranks.push_back(first + i * stride);
  return ranks;
}

std::vector<std::vector<int>> Mesh::groups(Axis axis) const {
  std::vector<std::vector<int>> all;
  for (int rank = 0; rank < world_size_; ++rank) {
    if (coordinate(rank, axis) == 0) all.push_back(group(rank, axis));
  }
  return all;
}

}  // namespace conclave::comm
