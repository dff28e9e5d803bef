// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <vector>

#include "conclave/optim/parameter_shards.h"

namespace conclave::optim {

// The gradients of a step over all ranks. What backward leaves on a rank is its additive share, so every
// reduction is a sum and no divisor comes later; the tags say which ranks hold a parameter, and nothing else
// is read.
class Gradients {
 public:
  explicit Gradients(std::shared_ptr<const ParameterShards> shards);
  // On one rank, or without anything shared out.
  explicit Gradients(std::vector<nn::TaggedParameter> parameters,
                     comm::RankGroups ranks = comm::single_rank());
  ~Gradients();

  // The next backward pass is the step's last one: each bucket of parameters is on its way to the other ranks
  // as soon as their gradients are complete, while the pass goes on. A parameter that gets another part of
  // its gradient after that is an Error. Without this call everything is sent by sum_over_ranks().
  void send_as_they_come();

  // Every gradient that this rank updates by (ParameterShards::owned) becomes the sum over the ranks that
  // hold the parameter; the others are freed. A parameter without a gradient counts as zero, and keeps none
  // if it has one nowhere. Buckets are started in one order on every rank, so that none waits for another's.
  // Called by all ranks.
  void sum_over_ranks();

  // Global norm of the sums, every element of every expert and all else once; the same bits on all ranks.
  // Called by all ranks.
  double norm() const;

  // What is hooked into the backward pass and keeps count; for the sources of this class.
  struct Flight;

 private:
  void unhook();

  std::shared_ptr<const ParameterShards> shards_;
  std::shared_ptr<Flight> flight_;
};

}  // namespace conclave::optim
