// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

// Legend: S source rows, U units (what is routed, e.g. tokens), A expert rows (kept pairs), N pairs, E
// experts, D model width, F expert width.
namespace conclave::ops {

// Rows for experts without gathering them: row a of the experts' input is source row `row_source_A[a]`. Rows
// are sorted by expert; expert e owns [expert_offsets_E1[e], expert_offsets_E1[e + 1]). Rows behind those of
// the last expert are nobody's: what they hold is read by no one.
struct Rows {
  at::Tensor source_SD = {};          // [S, D] floating, differentiable
  at::Tensor row_source_A = {};       // [A] int32
  at::Tensor expert_offsets_E1 = {};  // [E + 1] int32
  // The inverse map, by which rows are made on devices and gradients of the source everywhere: rows_N[j], j
  // in [source_offsets[s], source_offsets[s + 1]), are the rows made from source row s; -1 is skipped. It
  // names every row of an expert.
  at::Tensor source_offsets_S1 = {};  // [S + 1] int32
  at::Tensor rows_N = {};             // [N] int32

  int64_t num_rows() const { return row_source_A.size(0); }
  int64_t num_experts() const { return expert_offsets_E1.size(0) - 1; }
};

// weights_A[a] * W2_e(silu(gate_e(x_a)) * up_e(x_a)) for every row a: a bank of SwiGLU experts.
//   rows       see above
//   weights_A  [A] fp32, or fp64 beside fp64 rows: combine weight s of each row, differentiable
//   w13_E2FD   [E, 2F, D]: gate rows beside up rows;  w2_EDF [E, D, F]; fp32, or fp64 beside fp64 rows
//   returns    [A, D] in the dtype of the rows
// Saved for backward: source [S, D], pre-activations [A, 2F], weights [A] and the maps; neither the gathered
// rows nor the experts' outputs: with dA' = dO W2^T the gradient of s is <dA', act> (the SonicMoE identity),
// so 2SD + 4AF bytes for bf16 rows. An expert without rows gets exactly zero gradients. CPU; rows in fp32,
// fp64 or bf16. `product` is the type of the matrix products, by default that of ops/product.h; in bf16 an
// expert's rows are padded to a multiple of 64 in scratch, since a number of rows seen for the first time
// costs oneDNN a new kernel.
at::Tensor expert_mlp(const Rows& rows, const at::Tensor& weights_A, const at::Tensor& w13_E2FD,
                      const at::Tensor& w2_EDF, std::optional<c10::ScalarType> product = {});

// out[u] = sum of rows_AD[row_of_pair_N[j]] for the pairs j in [unit_offsets[u], unit_offsets[u + 1]), in
// that order; pairs with row -1 add nothing, a unit without rows gets 0. Saves only the maps.
//   rows_AD [A, D]; unit_offsets_U1 [U + 1] int32; row_of_pair_N [N] int32; returns [U, D]
//   whole  every row that anybody reads has a pair. The gradient of others is then anything; else it is 0,
//          which costs a pass over all rows.
at::Tensor combine_rows(const at::Tensor& rows_AD, const at::Tensor& unit_offsets_U1,
                        const at::Tensor& row_of_pair_N, bool whole = false);

// x [..., 2F] -> silu(first half) * second half, [..., F]; saves x only.
at::Tensor swiglu(const at::Tensor& gate_up);

}  // namespace conclave::ops
