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

// Calls body(source, place) for the rows of this rank's experts, in the order of (expert, source rank, place
// at the source); `place` counts from the first row of `source` for the experts of rank `me`. Returns the
// offsets of the experts.
template <class Body>
std::vector<int64_t> for_rows_by_expert(const DispatchLayout& layout, int64_t me, Body body) {
  std::vector<int64_t> next(static_cast<size_t>(layout.num_ranks), 0), offsets = {0};
  int64_t row = 0;
  for (int64_t e = me * layout.local(); e < (me + 1) * layout.local(); ++e) {
    for (int64_t rank = 0; rank < layout.num_ranks; ++rank) {
      auto& place = next[static_cast<size_t>(rank)];
      for (int64_t i = 0; i < layout.rows(rank, e); ++i, ++row) body(rank, place++);
    }
    offsets.push_back(row);
  }
  return offsets;
}

}  // namespace conclave::moe
