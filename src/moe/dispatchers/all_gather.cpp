// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/tensor.h>

#include "conclave/moe/dispatcher.h"
#include "conclave/ops/exchange.h"
#include "layout.h"

namespace conclave::moe {

namespace {

class AllGatherDispatcher : public RanksDispatcher {
 public:
  using RanksDispatcher::RanksDispatcher;

  Dispatched dispatch(const SparsePlan& plan, DispatchLayout& layout, const at::Tensor& x_UD,
                      const at::Tensor& weights_A) override {
    layout.complete();
    const auto units_P = layout.units_P();
    std::vector<int64_t> rows_P;  // of all experts
    for (int64_t rank = 0; rank < layout.num_ranks; ++rank) {
      rows_P.push_back(0);
      for (int64_t e = 0; e < layout.num_experts; ++e) rows_P.back() += layout.rows(rank, e);
    }
    const auto unit_of_row = ops::gather_from_ranks(moe::unit_of_row(plan), rows_P, ranks_);
    const auto weights = ops::gather_from_ranks(weights_A, rows_P, ranks_);
    Dispatched out;
    const auto taken = take_rows(layout, rows_P, unit_of_row, out.rows);
    out.rows.source_SD = ops::gather_from_ranks(x_UD, units_P, ranks_);
    out.weights_A = weights.index_select(0, taken);
    return out;
  }

  at::Tensor combine(const SparsePlan&, DispatchLayout& layout, const Dispatched& dispatched,
                     const at::Tensor& y_AD) override {
    const auto& rows = dispatched.rows;
    return ops::sum_to_ranks(ops::combine_rows(y_AD, rows.row_source_A, rows.source_offsets_S1, rows.rows_N),
                             layout.units_P(), ranks_);
  }

 private:
  // Fills the maps of `rows` for the experts of this rank, over the units of all ranks; returns which of all
  // ranks' rows, sorted by (rank, expert), they are.
  at::Tensor take_rows(const DispatchLayout& layout, const std::vector<int64_t>& rows_P,
                       const at::Tensor& unit_of_row, ops::Rows& rows) const {
    std::vector<int64_t> first_row = {0}, first_unit = {0};  // of each rank
    for (int64_t rank = 0; rank < layout.num_ranks; ++rank) {
      first_row.push_back(first_row.back() + rows_P[static_cast<size_t>(rank)]);
      first_unit.push_back(first_unit.back() + layout.units(rank));
    }
    // Ahead of the rows for our experts a rank has those for the experts of the ranks before us.
    std::vector<int64_t> skipped(static_cast<size_t>(layout.num_ranks), 0);
    for (int64_t rank = 0; rank < layout.num_ranks; ++rank) {
      for (int64_t before = 0; before < ranks_->rank(); ++before)
        skipped[static_cast<size_t>(rank)] += layout.rows_between(rank, before);
    }
    const auto* units = unit_of_row.const_data_ptr<int32_t>();
    std::vector<int64_t> taken;
    std::vector<int32_t> source;
    rows.expert_offsets = for_rows_by_expert(layout, ranks_->rank(), [&](int64_t rank, int64_t place) {
      const auto r = static_cast<size_t>(rank);
      taken.push_back(first_row[r] + skipped[r] + place);
      source.push_back(static_cast<int32_t>(first_unit[r]) + units[taken.back()]);
    });
    // The rows of each unit, in the order of their experts.
    std::vector<int32_t> offsets(static_cast<size_t>(first_unit.back()) + 1, 0), row_of(source.size());
    for (const int32_t unit : source) ++offsets[static_cast<size_t>(unit) + 1];
    for (size_t u = 1; u < offsets.size(); ++u) offsets[u] += offsets[u - 1];
    auto next = offsets;
    for (size_t row = 0; row < source.size(); ++row)
      row_of[static_cast<size_t>(next[static_cast<size_t>(source[row])]++)] = static_cast<int32_t>(row);
    rows.row_source_A = at::tensor(source, at::kInt);
    rows.source_offsets_S1 = at::tensor(offsets, at::kInt);
    rows.rows_N = at::tensor(row_of, at::kInt);
    return at::tensor(taken, at::kLong);
  }
};

}  // namespace

std::unique_ptr<Dispatcher> make_all_gather_dispatcher(std::shared_ptr<comm::Communicator> ranks) {
  return std::make_unique<AllGatherDispatcher>(std::move(ranks));
}

}  // namespace conclave::moe
