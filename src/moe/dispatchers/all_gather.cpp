// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/arange.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/tensor.h>

#include "conclave/moe/dispatcher.h"
#include "conclave/ops/exchange.h"
#include "conclave/ops/functions.h"
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
    const auto of_all = [&](const at::Tensor& mine) {
      return ops::gather_from_ranks(mine.narrow(0, 0, rows_P[static_cast<size_t>(ranks_->rank())]), rows_P,
                                    ranks_);
    };
    const auto unit_of_row = of_all(moe::unit_of_row(plan)), weights = of_all(weights_A);
    Dispatched out;
    const auto taken = take_rows(layout, rows_P, unit_of_row, out.rows);
    out.rows.source_SD = ops::gather_from_ranks(x_UD, units_P, ranks_);
    out.weights_A = weights.index_select(0, taken);
    return out;
  }

  at::Tensor combine(const SparsePlan&, DispatchLayout& layout, const Dispatched& dispatched,
                     const at::Tensor& y_AD) override {
    const auto& rows = dispatched.rows;
    return ops::sum_to_ranks(ops::combine_rows(y_AD, rows.source_offsets_S1, rows.rows_N, /*whole=*/true),
                             layout.units_P(), ranks_);
  }

 private:
  // Fills the maps of `rows` for the experts of this rank, over the units of all ranks; returns which of all
  // ranks' rows, sorted by (rank, expert), they are.
  at::Tensor take_rows(const DispatchLayout& layout, const std::vector<int64_t>& rows_P,
                       const at::Tensor& unit_of_row, ops::Rows& rows) const {
    const auto device = unit_of_row.device();
    std::vector<int32_t> first_unit = {0};  // of each rank
    int64_t num_mine = 0;
    for (int64_t rank = 0; rank < layout.num_ranks; ++rank) {
      first_unit.push_back(first_unit.back() + static_cast<int32_t>(layout.units(rank)));
      num_mine += layout.rows_between(rank, ranks_->rank());
    }
    const int64_t num_units = first_unit.back(), num_rows = unit_of_row.size(0), local = layout.local();
    first_unit.pop_back();
    const auto first_of_row = at::tensor(first_unit, at::kInt)
                                  .to(device)
                                  .repeat_interleave(at::tensor(rows_P, at::kLong).to(device), 0, num_rows);
    const auto expert = expert_of_rows(layout, 0, layout.num_experts, device).sub(ranks_->rank() * local);
    const auto sorted =
        ops::sort_pairs_by_expert(expert.masked_fill(expert.ge(local), -1).clamp_min(-1), {}, local);
    const auto taken = sorted.pair_of_row_A.narrow(0, 0, num_mine);
    rows.expert_offsets_E1 = sorted.expert_offsets_E1;
    rows.row_source_A = unit_of_row.add(first_of_row).index_select(0, taken);
    // The rows of each unit, in the order of their experts.
    const auto [unit, row] = rows.row_source_A.sort(/*stable=*/true, 0, /*descending=*/false);
    rows.rows_N = row.to(at::kInt);
    rows.source_offsets_S1 =
        at::searchsorted(unit, at::arange(num_units + 1, unit.options()), /*out_int32=*/true);
    return taken;
  }
};

}  // namespace

std::unique_ptr<Dispatcher> make_all_gather_dispatcher(std::shared_ptr<comm::Communicator> ranks) {
  return std::make_unique<AllGatherDispatcher>(std::move(ranks));
}

}  // namespace conclave::moe
