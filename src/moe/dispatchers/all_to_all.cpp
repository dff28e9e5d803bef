// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include "conclave/moe/dispatcher.h"
#include "conclave/ops/exchange.h"
#include "layout.h"
#include "rows_of.h"

namespace conclave::moe {

namespace {

class AllToAllDispatcher : public RanksDispatcher {
 public:
  using RanksDispatcher::RanksDispatcher;

  Dispatched dispatch(const SparsePlan& plan, DispatchLayout& layout, const at::Tensor& x_UD,
                      const at::Tensor& weights_A) override {
    const auto x_AD = ops::gather_rows(rows_of(plan, x_UD));
    layout.complete();
    Dispatched out;
    for (int64_t rank = 0; rank < ranks_->size(); ++rank) {
      out.sent.push_back(layout.rows_between(ranks_->rank(), rank));
      out.received.push_back(layout.rows_between(rank, ranks_->rank()));
    }
    out.rows = by_expert(layout, out.received);
    out.rows.source_SD = ops::exchange_rows(x_AD, out.sent, out.received, ranks_);
    out.weights_A =
        ops::exchange_rows(weights_A, out.sent, out.received, ranks_).index_select(0, out.rows.row_source_A);
    return out;
  }

  at::Tensor combine(const SparsePlan& plan, DispatchLayout&, const Dispatched& dispatched,
                     const at::Tensor& y_AD) override {
    const auto arrived = y_AD.index_select(0, dispatched.rows.rows_N);  // in the order in which the rows came
    const auto back = ops::exchange_rows(arrived, dispatched.received, dispatched.sent, ranks_);
    return ops::combine_rows(back, unit_of_row(plan), plan.unit_offsets_U1, plan.row_of_pair_N);
  }

 private:
  // Rows arrive sorted by (rank, expert); experts want them sorted by (expert, rank).
  ops::Rows by_expert(const DispatchLayout& layout, const std::vector<int64_t>& received) const {
    std::vector<int64_t> first = {0};  // of each rank
    for (const int64_t count : received) first.push_back(first.back() + count);
    const int64_t num_rows = first.back();
    ops::Rows rows{.row_source_A = at::empty({num_rows}, at::kInt),
                   .source_offsets_S1 = at::arange(num_rows + 1, at::kInt),
                   .rows_N = at::empty({num_rows}, at::kInt)};
    auto* source = rows.row_source_A.data_ptr<int32_t>();
    auto* row_of = rows.rows_N.data_ptr<int32_t>();
    int32_t row = 0;
    rows.expert_offsets = for_rows_by_expert(layout, ranks_->rank(), [&](int64_t rank, int64_t place) {
      const int64_t from = first[static_cast<size_t>(rank)] + place;
      source[row] = static_cast<int32_t>(from);
      row_of[from] = row++;
    });
    return rows;
  }
};

}  // namespace

std::unique_ptr<Dispatcher> make_all_to_all_dispatcher(std::shared_ptr<comm::Communicator> ranks) {
  return std::make_unique<AllToAllDispatcher>(std::move(ranks));
}

}  // namespace conclave::moe
