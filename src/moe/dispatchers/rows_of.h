// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/routing_plan.h"
#include "conclave/ops/expert_mlp.h"

namespace conclave::moe {

// The plan's expert rows as a map over x_UD [U, D], of all experts.
inline ops::Rows rows_of(const SparsePlan& plan, const at::Tensor& x_UD) {
  return {.source_SD = x_UD,
          .row_source_A = unit_of_row(plan),
          .expert_offsets_E1 = plan.expert_offsets_E1,
          .source_offsets_S1 = plan.unit_offsets_U1,
          .rows_N = plan.row_of_pair_N};
}

}  // namespace conclave::moe
