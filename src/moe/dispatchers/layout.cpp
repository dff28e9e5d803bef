// SPDX-License-Identifier: Apache-2.0
#include "layout.h"

#include <algorithm>

#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/ops/functions.h"

namespace conclave::moe {

int64_t DispatchLayout::rows(int64_t rank, int64_t expert) const {
  return counts[static_cast<size_t>(rank * (num_experts + 1) + expert)];
}

int64_t DispatchLayout::rows_between(int64_t source, int64_t target) const {
  int64_t sum = 0;
  for (int64_t e = target * local(); e < (target + 1) * local(); ++e) sum += rows(source, e);
  return sum;
}

std::vector<int64_t> DispatchLayout::units_P() const {
  std::vector<int64_t> all;
  for (int64_t r = 0; r < num_ranks; ++r) all.push_back(units(r));
  return all;
}

bool DispatchLayout::in_equal_parts() const {
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    for (int64_t e = 0; e < num_experts; ++e) {
      if (rows(rank, e) != rows(0, 0)) return false;
    }
  }
  return true;
}

int64_t DispatchLayout::most_rows() const {
  int64_t most = 0;
  for (int64_t target = 0; target < num_ranks; ++target) {
    int64_t sum = 0;
    for (int64_t source = 0; source < num_ranks; ++source) sum += rows_between(source, target);
    most = std::max(most, sum);
  }
  return most;
}

namespace {

constexpr int32_t kNone = -1;  // instead of a count

void send_mine(DispatchLayout& layout, comm::Communicator& ranks) {
  layout.counts.resize(layout.mine.size() * static_cast<size_t>(layout.num_ranks));
  const auto size = [](const std::vector<int32_t>& v) { return static_cast<int64_t>(v.size()); };
  layout.work = ranks.start_all_gather({layout.mine.data(), size(layout.mine), comm::DataType::kInt32},
                                       {layout.counts.data(), size(layout.counts), comm::DataType::kInt32},
                                       comm::Content::kMetadata);
}

void send_counts(const SparsePlan& plan, DispatchLayout& layout, comm::Communicator& ranks) {
  layout.mine.clear();
  if (plan.padded) {
    layout.mine.assign(static_cast<size_t>(layout.num_experts), static_cast<int32_t>(plan.capacity));
  } else {
    // The one place where the host waits for a device: what it sends must be known to it.
    const auto offsets_E1 = plan.expert_offsets_E1.cpu();
    const auto* offset = offsets_E1.const_data_ptr<int32_t>();
    for (int64_t e = 0; e < layout.num_experts; ++e) layout.mine.push_back(offset[e + 1] - offset[e]);
  }
  layout.mine.push_back(static_cast<int32_t>(plan.unit_offsets_U1.size(0) - 1));
  send_mine(layout, ranks);
}

// The pairs that this rank's quota for the experts of each rank leaves.
SparsePlan within_quota(const SparsePlan& plan, const DispatchLayout& layout) {
  // Kept pairs queue for the rank of their expert in their own order.
  const auto rank_N = plan.expert_N.div(layout.local(), "floor").masked_fill(plan.row_of_pair_N.lt(0), -1);
  const auto queue = ops::sort_pairs_by_expert(rank_N, {}, layout.num_ranks);
  const auto last_P = at::tensor(layout.quota_P, at::kInt)
                          .to(rank_N.device())
                          .add(queue.expert_offsets_E1.narrow(0, 0, layout.num_ranks));
  const auto kept = queue.row_of_pair_N.lt(last_P.index_select(0, rank_N.clamp_min(0)))
                        .logical_and(rank_N.ge(0))
                        .to(at::kByte);
  return make_sparse_plan(plan.unit_offsets_U1.size(0) - 1, layout.num_experts, plan.unit_N, plan.expert_N,
                          plan.choice_N, plan.weight_N, kept);
}

}  // namespace

std::shared_ptr<DispatchLayout> start_counting(const SparsePlan& plan, comm::Communicator& ranks) {
  auto layout = std::make_shared<DispatchLayout>();
  layout->num_ranks = ranks.size();
  layout->num_experts = plan.expert_offsets_E1.size(0) - 1;
  CONCLAVE_CHECK(layout->num_experts % layout->num_ranks == 0,
                 fmt::format("{} experts on {} ranks", layout->num_experts, layout->num_ranks));
  send_counts(plan, *layout, ranks);
  return layout;
}

void DispatchLayout::complete() {
  work.wait();
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    if (units(rank) != kNone) continue;
    throw Error(fmt::format("the router of rank {} of the {} that share the experts has refused its values",
                            rank, num_ranks),
                Error::Kind::kDiverged);
  }
}

void tell_no_counts(int64_t num_experts, comm::Communicator& ranks) {
  DispatchLayout layout{.num_ranks = ranks.size(),
                        .num_experts = num_experts,
                        .mine = std::vector<int32_t>(static_cast<size_t>(num_experts) + 1, kNone)};
  send_mine(layout, ranks);
  layout.work.wait();
}

at::Tensor expert_of_rows(const DispatchLayout& layout, int64_t first_expert, int64_t num_experts,
                          c10::Device device) {
  std::vector<int32_t> experts;
  std::vector<int64_t> counts;
  int64_t num_rows = 0;
  for (int64_t rank = 0; rank < layout.num_ranks; ++rank) {
    for (int64_t e = first_expert; e < first_expert + num_experts; ++e) {
      experts.push_back(static_cast<int32_t>(e));
      counts.push_back(layout.rows(rank, e));
      num_rows += counts.back();
    }
  }
  return at::tensor(experts, at::kInt)
      .to(device)
      .repeat_interleave(at::tensor(counts, at::kLong).to(device), 0, num_rows);
}

SparsePlan within_limits(const SparsePlan& plan, DispatchLayout& layout, const DispatchLimits& limits,
                         comm::Communicator& ranks) {
  if (!limits.rank_budget) return plan;
  if (!layout.quota_P.empty()) return within_quota(plan, layout);  // a recomputed pass
  layout.complete();
  const int64_t budget = *limits.rank_budget, most = layout.most_rows();
  if (most <= budget) return plan;
  if (limits.on_overflow != OnOverflow::kDrop) {
    throw RankOverflow(
        fmt::format(
            "a rank would get {} rows for its experts, and model.moe.dispatcher.rank_budget allows {}; "
            "raise it, balance the experts, or set on_overflow to drop or rerun",
            most, budget),
        most);
  }
  for (int64_t target = 0; target < layout.num_ranks; ++target) {
    int64_t left = budget;
    for (int64_t source = 0; source < ranks.rank(); ++source)
      left -= std::min(left, layout.rows_between(source, target));
    layout.quota_P.push_back(std::min(left, layout.rows_between(ranks.rank(), target)));
  }
  auto kept = within_quota(plan, layout);
  send_counts(kept, layout, ranks);
  return kept;
}

}  // namespace conclave::moe
