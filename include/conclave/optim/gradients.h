// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "conclave/comm/groups.h"
#include "conclave/nn/module.h"

namespace conclave::optim {

// The gradients of a step over all ranks. What backward leaves on a rank is its additive share, so every
// reduction is a sum and no divisor comes later; the tags say which ranks hold a parameter, and nothing else
// is read.
class Gradients {
 public:
  explicit Gradients(std::vector<nn::TaggedParameter> parameters,
                     comm::RankGroups ranks = comm::single_rank());

  // Every gradient becomes the sum over the ranks that hold its parameter, the same bits on all of them. In
  // buckets whose order is that of the parameters, last ones first, so that no rank waits for another's. A
  // parameter without a gradient counts as zero, and keeps none if it has one nowhere. Called by all ranks.
  void sum_over_ranks();

  // Global norm over all experts and each other parameter once; the same bits on all ranks. Called by all
  // ranks.
  double norm() const;

 private:
  struct Bucket {
    nn::ReduceGroup group = {};
    std::vector<size_t> parameters = {};
    int64_t size = 0;  // elements
  };
  comm::Communicator& group(nn::ReduceGroup group) const;
  void sum(const Bucket& bucket);

  std::vector<nn::TaggedParameter> parameters_;
  comm::RankGroups ranks_;
  std::vector<Bucket> buckets_;
};

}  // namespace conclave::optim
