// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "conclave/moe/dispatcher.h"

namespace conclave::moe {

// Starts to bring everybody's counts to everybody.
std::shared_ptr<DispatchLayout> start_counting(const SparsePlan& plan, comm::Communicator& ranks);
// Tells everybody that this rank has no counts to bring.
void tell_no_counts(int64_t num_experts, comm::Communicator& ranks);

// What the ways of moving rows between ranks share.
class RanksDispatcher : public Dispatcher {
 public:
  explicit RanksDispatcher(std::shared_ptr<comm::Communicator> ranks) : ranks_(std::move(ranks)) {}
  std::shared_ptr<DispatchLayout> plan(const SparsePlan& plan) override {
    return start_counting(plan, *ranks_);
  }
  void give_up(int64_t num_experts) override { tell_no_counts(num_experts, *ranks_); }

 protected:
  std::shared_ptr<comm::Communicator> ranks_;
};

// [R] int32: the expert of every row that the ranks have for the experts [first_expert, first_expert +
// num_experts), sorted by (rank, expert).
at::Tensor expert_of_rows(const DispatchLayout& layout, int64_t first_expert, int64_t num_experts,
                          c10::Device device);

}  // namespace conclave::moe
