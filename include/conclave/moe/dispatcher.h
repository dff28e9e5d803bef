// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conclave/comm/communicator.h"
#include "conclave/core/error.h"
#include "conclave/moe/routing_plan.h"
#include "conclave/ops/expert_mlp.h"

namespace conclave::moe {

// What the ranks of a layer have for each other. Found out once; a recomputed pass gets that of the first.
struct DispatchLayout {
  // [P][E + 1], complete after wait(): the rows that rank p has for each expert, and its units.
  std::vector<int32_t> counts = {};
  int64_t num_ranks = 1, num_experts = 0;
  std::vector<int32_t> mine = {};  // [E + 1], on its way
  comm::Work work = {};
  // Rows for the experts of each rank that this rank may send; empty: all (DispatchLimits).
  std::vector<int64_t> quota_P = {};

  int64_t local() const { return num_experts / num_ranks; }  // experts of a rank
  int64_t rows(int64_t rank, int64_t expert) const;
  int64_t rows_between(int64_t source, int64_t target) const;
  int64_t units(int64_t rank) const { return rows(rank, num_experts); }
  std::vector<int64_t> units_P() const;
  int64_t most_rows() const;    // that a rank gets
  bool in_equal_parts() const;  // every rank has as many rows for each expert
  // Waits for the counts. Throws (kind kDiverged) on every rank when one has given up.
  void complete();
};

enum class OnOverflow { kError, kDrop, kRerun };

// How much one rank may get to compute in a layer and micro-batch of training, all its experts together.
struct DispatchLimits {
  std::optional<int64_t> rank_budget = {};  // rows; null: no limit
  OnOverflow on_overflow = OnOverflow::kError;
};

// A rank would get more rows than its budget; thrown on all ranks of the layer.
class RankOverflow : public Error {
 public:
  RankOverflow(const std::string& message, int64_t rows) : Error(message, Kind::kMemory), rows_(rows) {}
  int64_t rows() const { return rows_; }  // a budget that is enough here

 private:
  int64_t rows_;
};

// What the experts of this rank read, and what `combine` needs to send their outputs back.
struct Dispatched {
  ops::Rows rows = {};                            // sorted by expert; of the experts that live here
  at::Tensor weights_A = {};                      // [A] combine weight of each row, differentiable
  std::vector<int64_t> sent = {}, received = {};  // all_to_all: rows to and from each rank
  bool in_equal_parts = false;                    // the same on all ranks
};

// Moves rows to their experts and back; the only class of `moe` that knows ranks.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  // Starts the exchange of counts, which may go on until they are needed. Called by all ranks.
  virtual std::shared_ptr<DispatchLayout> plan(const SparsePlan& plan) = 0;
  // Instead of plan(), where this rank has no plan: the others, who wait for its counts, are told.
  virtual void give_up(int64_t num_experts) = 0;
  // x_UD [U, D] of this rank's units; weights_A [A] in the order of the plan's expert rows.
  virtual Dispatched dispatch(const SparsePlan& plan, DispatchLayout& layout, const at::Tensor& x_UD,
                              const at::Tensor& weights_A) = 0;
  // y_AD: one output for each dispatched row, in their order. Returns [U, D]; the order in which a unit's
  // outputs are summed does not depend on when they arrived.
  virtual at::Tensor combine(const SparsePlan& plan, DispatchLayout& layout, const Dispatched& dispatched,
                             const at::Tensor& y_AD) = 0;
};

// All experts live here: they read through the row map, and nothing is moved.
std::unique_ptr<Dispatcher> make_local_dispatcher();

// Where rank r of `ranks` holds the experts [r E/P, (r + 1) E/P) of E, P ranks; other placements number the
// experts anew before. Every rank takes part in
// every exchange, whatever it has to send. Rows of an expert stand in the order of (source rank, place at the
// source).
//   all_to_all: each row goes to the rank of its expert and its output comes back: k T D values each way, of
//     which (P - 1) / P leave a rank of T tokens. Sums in the order of a unit's choices.
//   all_gather: each unit goes to all ranks; each of them adds up the outputs of its experts, and the ranks'
//     sums are added in their order, in fp32 or wider: (P - 1) T D values each way, fewer where k > P.
std::unique_ptr<Dispatcher> make_all_to_all_dispatcher(std::shared_ptr<comm::Communicator> ranks);
std::unique_ptr<Dispatcher> make_all_gather_dispatcher(std::shared_ptr<comm::Communicator> ranks);

// The pairs that fit into the budget of every rank: with kDrop those of an overfull rank that come first in
// the order of (source rank, unit, choice) are kept, which depends on which experts share a rank. Throws
// RankOverflow with kError and kRerun. Called by all ranks; waits for the layout, and counts again what is
// left after drops.
SparsePlan within_limits(const SparsePlan& plan, DispatchLayout& layout, const DispatchLimits& limits,
                         comm::Communicator& ranks);

}  // namespace conclave::moe
