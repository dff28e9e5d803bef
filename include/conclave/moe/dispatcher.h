// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <vector>

#include "conclave/comm/communicator.h"
#include "conclave/moe/routing_plan.h"
#include "conclave/ops/expert_mlp.h"

namespace conclave::moe {

// What the experts of this rank read, and what `combine` needs to send their outputs back.
struct Dispatched {
  ops::Rows rows = {};        // sorted by expert; of the experts that live here
  at::Tensor weights_A = {};  // [A] combine weight of each row, differentiable
  // Rows to and from each rank; empty where nothing moved.
  std::vector<int64_t> sent = {}, received = {};
};

// Moves rows to their experts and back; the only class of `moe` that knows ranks.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  // x_UD [U, D] of this rank's units; weights_A [A] in the order of the plan's expert rows.
  virtual Dispatched dispatch(const SparsePlan& plan, const at::Tensor& x_UD,
                              const at::Tensor& weights_A) = 0;
  // y_AD: one output for each dispatched row, in their order. Returns [U, D], summed in the order of a unit's
  // choices, so that the sum does not depend on when a row arrived.
  virtual at::Tensor combine(const SparsePlan& plan, const Dispatched& dispatched,
                             const at::Tensor& y_AD) = 0;
};

// All experts live here: they read through the row map, and nothing is moved.
std::unique_ptr<Dispatcher> make_local_dispatcher();

// Rank r of `ranks` holds the experts [r E/P, (r + 1) E/P) of E, P ranks. One exchange of counts, one of rows
// and one of weights on the way out, one of rows on the way back; every rank takes part, whatever it has to
// send. Rows of an expert stand in the order of (source rank, place at the source).
std::unique_ptr<Dispatcher> make_all_to_all_dispatcher(std::shared_ptr<comm::Communicator> ranks);

}  // namespace conclave::moe
