// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/routing_plan.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/searchsorted.h>

#include "conclave/core/error.h"
#include "conclave/ops/functions.h"

namespace conclave::moe {

SparsePlan make_sparse_plan(int64_t num_units, int64_t num_experts, at::Tensor unit_N, at::Tensor expert_N,
                            at::Tensor choice_N, at::Tensor weight_N, const at::Tensor& kept_N,
                            at::Tensor requested_E) {
  auto sorted = ops::sort_pairs_by_expert(expert_N, kept_N, num_experts);
  SparsePlan plan;
  const auto& offsets_E1 = sorted.expert_offsets_E1;
  plan.kept_E = offsets_E1.narrow(0, 1, num_experts).sub(offsets_E1.narrow(0, 0, num_experts)).to(at::kLong);
  plan.requested_E = !kept_N.defined()       ? plan.kept_E
                     : requested_E.defined() ? std::move(requested_E)
                                             : ops::count_values(expert_N, num_experts);
  plan.unit_offsets_U1 =
      at::searchsorted(unit_N, at::arange(num_units + 1, unit_N.options()), /*out_int32=*/true);
  plan.unit_N = std::move(unit_N);
  plan.expert_N = std::move(expert_N);
  plan.choice_N = std::move(choice_N);
  plan.weight_N = std::move(weight_N);
  plan.row_of_pair_N = std::move(sorted.row_of_pair_N);
  plan.pair_of_row_A = std::move(sorted.pair_of_row_A);
  plan.expert_offsets_E1 = std::move(sorted.expert_offsets_E1);
  return plan;
}

SparsePlan padded_to_capacity(const SparsePlan& plan, int64_t num_experts) {
  const int64_t capacity = plan.capacity;
  CONCLAVE_CHECK(capacity > 0, "padded_to_capacity: the plan has no capacity");
  const auto int32 = plan.row_of_pair_N.options();
  const auto& offsets_E1 = plan.expert_offsets_E1;
  const auto first_E = offsets_E1.narrow(0, 0, num_experts), last_E = offsets_E1.narrow(0, 1, num_experts);
  SparsePlan padded = plan;
  padded.padded = true;
  padded.expert_offsets_E1 = at::arange(num_experts + 1, int32).mul(capacity);
  // Row s of expert e is row first + s of the plan, if the expert has so many.
  const auto row_EC = first_E.unsqueeze(1).add(at::arange(capacity, int32));
  const auto none_EC = row_EC.ge(last_E.unsqueeze(1));
  const bool some = plan.pair_of_row_A.size(0) > 0;
  const auto pair_A = some ? plan.pair_of_row_A : at::full({1}, -1, int32);
  padded.pair_of_row_A = pair_A.index_select(0, row_EC.masked_fill(none_EC, 0).reshape({-1}))
                             .masked_fill(none_EC.reshape({-1}), -1);
  const auto expert_N = plan.expert_N.clamp_min(0);
  padded.row_of_pair_N = plan.row_of_pair_N.sub(first_E.index_select(0, expert_N))
                             .add(expert_N.mul(capacity))
                             .masked_fill(plan.row_of_pair_N.lt(0), -1);
  return padded;
}

at::Tensor unit_of_row(const SparsePlan& plan) {
  return plan.unit_N.index_select(0, plan.pair_of_row_A.clamp_min(0));
}

SparsePlan to_sparse(const MixPlan& plan, int64_t num_experts) {
  const int64_t num_units = plan.weight_UE.size(0);
  const auto position = plan.weight_UE.detach().reshape({-1}).nonzero().squeeze(1);
  const auto unit = position.div(num_experts, "floor");
  const auto expert = position.sub(unit.mul(num_experts));
  return make_sparse_plan(num_units, num_experts, unit.to(at::kInt), expert.to(at::kInt), expert.to(at::kInt),
                          plan.weight_UE.reshape({-1}).index_select(0, position), {});
}

}  // namespace conclave::moe
