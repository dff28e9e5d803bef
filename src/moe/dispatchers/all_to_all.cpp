// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/moe/dispatcher.h"
#include "conclave/ops/exchange.h"
#include "rows_of.h"

namespace conclave::moe {

namespace {

// Rows that every rank sends to every expert, [P][E], and the share of experts that live on a rank.
struct Counts {
  std::vector<int32_t> rows_PE = {};
  int64_t num_ranks = 0, num_experts = 0;

  int64_t local() const { return num_experts / num_ranks; }
  int64_t at(int64_t rank, int64_t expert) const {
    return rows_PE[static_cast<size_t>(rank * num_experts + expert)];
  }
  // From `source` to the experts of `target`.
  int64_t between(int64_t source, int64_t target) const {
    int64_t sum = 0;
    for (int64_t e = target * local(); e < (target + 1) * local(); ++e) sum += at(source, e);
    return sum;
  }
};

Counts exchange_counts(const SparsePlan& plan, comm::Communicator& ranks) {
  Counts counts{.num_ranks = ranks.size(),
                .num_experts = static_cast<int64_t>(plan.expert_offsets.size()) - 1};
  CONCLAVE_CHECK(counts.num_experts % counts.num_ranks == 0,
                 fmt::format("{} experts on {} ranks", counts.num_experts, counts.num_ranks));
  std::vector<int32_t> mine;
  for (int64_t e = 0; e < counts.num_experts; ++e) {
    mine.push_back(static_cast<int32_t>(plan.expert_offsets[static_cast<size_t>(e) + 1] -
                                        plan.expert_offsets[static_cast<size_t>(e)]));
  }
  counts.rows_PE.resize(static_cast<size_t>(counts.num_ranks * counts.num_experts));
  ranks.all_gather({mine.data(), counts.num_experts, comm::DataType::kInt32},
                   {counts.rows_PE.data(), counts.num_ranks * counts.num_experts, comm::DataType::kInt32});
  return counts;
}

// Rows arrive sorted by (rank, expert); experts want them sorted by (expert, rank).
ops::Rows by_expert(const Counts& counts, int64_t me, const std::vector<int64_t>& received) {
  std::vector<int64_t> next;  // first row of each rank that is not placed yet
  int64_t num_rows = 0;
  for (const int64_t count : received) {
    next.push_back(num_rows);
    num_rows += count;
  }
  ops::Rows rows{.row_source_A = at::empty({num_rows}, at::kInt),
                 .expert_offsets = {0},
                 .source_offsets_S1 = at::arange(num_rows + 1, at::kInt),
                 .rows_N = at::empty({num_rows}, at::kInt)};
  auto* source = rows.row_source_A.data_ptr<int32_t>();
  auto* row_of = rows.rows_N.data_ptr<int32_t>();
  int32_t row = 0;
  for (int64_t e = me * counts.local(); e < (me + 1) * counts.local(); ++e) {
    for (int64_t rank = 0; rank < counts.num_ranks; ++rank) {
      auto& from = next[static_cast<size_t>(rank)];
      for (const int64_t end = from + counts.at(rank, e); from < end; ++from, ++row) {
        source[row] = static_cast<int32_t>(from);
        row_of[from] = row;
      }
    }
    rows.expert_offsets.push_back(row);
  }
  return rows;
}

class AllToAllDispatcher : public Dispatcher {
 public:
  explicit AllToAllDispatcher(std::shared_ptr<comm::Communicator> ranks) : ranks_(std::move(ranks)) {}

  Dispatched dispatch(const SparsePlan& plan, const at::Tensor& x_UD, const at::Tensor& weights_A) override {
    const auto counts = exchange_counts(plan, *ranks_);
    Dispatched out;
    for (int64_t rank = 0; rank < ranks_->size(); ++rank) {
      out.sent.push_back(counts.between(ranks_->rank(), rank));
      out.received.push_back(counts.between(rank, ranks_->rank()));
    }
    const auto x_AD = ops::gather_rows(rows_of(plan, x_UD));
    out.rows = by_expert(counts, ranks_->rank(), out.received);
    out.rows.source_SD = ops::exchange_rows(x_AD, out.sent, out.received, ranks_);
    out.weights_A =
        ops::exchange_rows(weights_A, out.sent, out.received, ranks_).index_select(0, out.rows.row_source_A);
    return out;
  }

  at::Tensor combine(const SparsePlan& plan, const Dispatched& dispatched, const at::Tensor& y_AD) override {
    const auto& rows = dispatched.rows;
    const auto arrived = y_AD.index_select(0, rows.rows_N);  // in the order in which the rows came
    const auto back = ops::exchange_rows(arrived, dispatched.received, dispatched.sent, ranks_);
    return ops::combine_rows(back, unit_of_row(plan), plan.unit_offsets_U1, plan.row_of_pair_N);
  }

 private:
  std::shared_ptr<comm::Communicator> ranks_;
};

}  // namespace

std::unique_ptr<Dispatcher> make_all_to_all_dispatcher(std::shared_ptr<comm::Communicator> ranks) {
  return std::make_unique<AllToAllDispatcher>(std::move(ranks));
}

}  // namespace conclave::moe
