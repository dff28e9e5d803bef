// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "conclave/ops/adamw.h"
#include "conclave/ops/functions.h"

// How the functions of `ops` reach kernels: one table for each kind of device.
namespace conclave::ops {

// Contracts are those of the headers in kernels/. Tensors are contiguous and live on the device; outputs are
// allocated by the caller and written whole. Storage types and widths are checked by the caller.
struct KernelTable {
  std::function<void(const at::Tensor& source_SD, const at::Tensor& index_N, const at::Tensor& out_ND)>
      gather_rows;
  std::function<void(const at::Tensor& rows_AD, const at::Tensor& offsets_U1, const at::Tensor& row_of_N,
                     const at::Tensor& out_UD)>
      sum_rows;
  std::function<void(const at::Tensor& in_ND, const at::Tensor& scale_N, const at::Tensor& out_ND)>
      scale_rows;
  std::function<void(const at::Tensor& h_A2F, const at::Tensor& act_AF)> swiglu_forward;
  // scale_A, d_scale_A: undefined is 1, not wanted.
  std::function<void(const at::Tensor& h_A2F, const at::Tensor& d_act_AF, const at::Tensor& scale_A,
                     const at::Tensor& d_h_A2F, const at::Tensor& scaled_act_AF, const at::Tensor& d_scale_A)>
      swiglu_backward;
  std::function<void(const at::Tensor& x_RD, const at::Tensor& weight_D, double eps, const at::Tensor& out_RD,
                     const at::Tensor& inv_R)>
      rms_norm_forward;
  std::function<void(const at::Tensor& x_RD, const at::Tensor& weight_D, const at::Tensor& inv_R,
                     const at::Tensor& d_out_RD, const at::Tensor& d_x_RD, const at::Tensor& d_weight_D)>
      rms_norm_backward;
  std::function<void(const at::Tensor& x_THP, const at::Tensor& cos_TP, const at::Tensor& sin_TP,
                     int direction, const at::Tensor& out_THP)>
      rope;
  std::function<void(const at::Tensor& scores_UE, const at::Tensor& chosen_UK)> select_top_k;
  std::function<SortedPairs(const at::Tensor& expert_N, const at::Tensor& kept_N, int64_t num_experts)>
      sort_pairs;
  std::function<void(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& exp_avg,
                     const at::Tensor& exp_avg_sq, const AdamWArguments& step)>
      adamw;
};

// The name of every entry, and whether it is there.
std::vector<std::pair<std::string, bool>> entries_of(const KernelTable& table);

// The kernels of the device that `t` lives on. Throws Error, naming `what` and the device, when there are
// none.
const KernelTable& kernels_of(const at::Tensor& t, const char* what);

// The CPU's table is there from the start; a program with other devices gives theirs before it computes.
// Returns the table that was there, all entries empty if none.
KernelTable install_kernels(c10::DeviceType device, KernelTable table);

}  // namespace conclave::ops
