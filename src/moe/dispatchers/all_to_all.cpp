// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/arange.h>

#include "conclave/moe/dispatcher.h"
#include "conclave/ops/exchange.h"
#include "conclave/ops/functions.h"
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
    int64_t num_sent = 0;
    Dispatched out;
    for (int64_t rank = 0; rank < ranks_->size(); ++rank) {
      out.sent.push_back(layout.rows_between(ranks_->rank(), rank));
      num_sent += out.sent.back();
      out.received.push_back(layout.rows_between(rank, ranks_->rank()));
    }
    out.in_equal_parts = layout.in_equal_parts();
    out.rows = by_expert(layout, x_UD.device());
    const auto arrived = [&](const at::Tensor& rows) {
      return ops::exchange_rows(rows.narrow(0, 0, num_sent), out.sent, out.received, ranks_,
                                out.in_equal_parts);
    };
    out.rows.source_SD = arrived(x_AD);
    out.weights_A = arrived(weights_A).index_select(0, out.rows.row_source_A);
    return out;
  }

  at::Tensor combine(const SparsePlan& plan, DispatchLayout&, const Dispatched& dispatched,
                     const at::Tensor& y_AD) override {
    const auto arrived = y_AD.index_select(0, dispatched.rows.rows_N);  // in the order in which the rows came
    const auto back =
        ops::exchange_rows(arrived, dispatched.received, dispatched.sent, ranks_, dispatched.in_equal_parts);
    return ops::combine_rows(back, plan.unit_offsets_U1, plan.row_of_pair_N, /*whole=*/!plan.padded);
  }

 private:
  // Rows arrive sorted by (rank, expert); experts want them sorted by (expert, rank).
  ops::Rows by_expert(const DispatchLayout& layout, c10::Device device) const {
    const int64_t local = layout.local(), first = ranks_->rank() * local;
    const auto expert_R = expert_of_rows(layout, first, local, device);
    const auto sorted = ops::sort_pairs_by_expert(expert_R.sub(first), {}, local);
    return {.row_source_A = sorted.pair_of_row_A,
            .expert_offsets_E1 = sorted.expert_offsets_E1,
            .source_offsets_S1 = at::arange(expert_R.size(0) + 1, expert_R.options()),
            .rows_N = sorted.row_of_pair_N};
  }
};

}  // namespace

std::unique_ptr<Dispatcher> make_all_to_all_dispatcher(std::shared_ptr<comm::Communicator> ranks) {
  return std::make_unique<AllToAllDispatcher>(std::move(ranks));
}

}  // namespace conclave::moe
