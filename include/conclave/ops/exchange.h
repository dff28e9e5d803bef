// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <vector>

#include "conclave/comm/communicator.h"
#include "conclave/ops/expert_mlp.h"

namespace conclave::ops {

// Rows of a tensor for other ranks, in the order of the ranks: send[r] of them go to rank r, receive[r] come
// from it, and stand in the order of the ranks in the result. Every rank calls it, with nothing to send as
// well, and every rank's backward does: it sends the gradients the way back.
// One value a row (combine weights) counts as metadata, more as payload.
//   rows     [A, ...] fp32, fp64 or bf16, differentiable; A = sum of send
//   returns  [R, ...]; R = sum of receive
// `equal`: every rank has as many for every rank, and says so (all_to_all_equal).
at::Tensor exchange_rows(const at::Tensor& rows, std::vector<int64_t> send, std::vector<int64_t> receive,
                         std::shared_ptr<comm::Communicator> ranks, bool equal = false);

// The rows of all ranks, in the order of the ranks; rank r has counts[r] of them, the same counts on all.
// Backward sums what the ranks make of a row, in their order, in fp32 or wider.
//   rows [counts[this], ...] fp32, fp64, bf16 or (without gradient) int32; returns [sum of counts, ...]
at::Tensor gather_from_ranks(const at::Tensor& rows, std::vector<int64_t> counts,
                             std::shared_ptr<comm::Communicator> ranks);

// The mirror image: every rank has a part of each rank's rows, which are summed in the order of the ranks, in
// fp32 or wider.
//   rows [sum of counts, ...] fp32, fp64 or bf16; returns [counts[this], ...]
at::Tensor sum_to_ranks(const at::Tensor& rows, std::vector<int64_t> counts,
                        std::shared_ptr<comm::Communicator> ranks);

// The rows of `rows` one after the other, [A, D]. Their gradients are summed in the order of `rows_N`, in
// fp32 or wider.
at::Tensor gather_rows(const Rows& rows);

}  // namespace conclave::ops
