// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "conclave/ops/adamw.h"
#include "conclave/ops/choice.h"
#include "conclave/ops/device_graphs.h"
#include "conclave/ops/functions.h"

// How the functions of `ops` reach kernels: one table for each kind of device.
namespace conclave::ops {

// Contracts are those of the headers in kernels/. Tensors are contiguous and live on the device; outputs are
// allocated by the caller and written whole, but for rows that permute_rows is not told of. Storage types and
// widths are checked by the caller.

// A bank of SwiGLU experts over rows sorted by expert; the legend is that of expert_mlp.h. Rows behind those
// of the last expert may be left as they are.
struct ExpertPass {
  at::Tensor x_SD = {}, s_A = {}, w13_E2FD = {}, w2_EDF = {};
  at::Tensor row_source_A = {}, offsets_E1 = {};     // int32
  at::Tensor source_offsets_S1 = {}, rows_N = {};    // the inverse map, int32
  c10::ScalarType product = c10::ScalarType::Float;  // what is multiplied
  bool wants_w13 = true, wants_w2 = true;            // in the backward pass
};
struct ExpertOutputs {
  at::Tensor h_A2F = {}, y_AD = {};  // pre-activations and weighted outputs, stored like x
};
struct ExpertGradients {
  at::Tensor x_AD = {};                             // of the gathered rows, in the type of the product
  at::Tensor s_A = {}, w13_E2FD = {}, w2_EDF = {};  // in their own; undefined: not wanted
};

// Choosing experts (choice.h); counts_E and non_finite [1] int32. Gradients that are undefined are zero.
struct RouterPass {
  TokenChoice how = {};
  bool repeats = false;  // chosen_UK is given
  at::Tensor logits_UE = {}, bias_E = {};
  at::Tensor chosen_UK = {}, weight_UK = {}, scores_UE = {}, counts_E = {}, non_finite = {};
};
struct RouterGradient {
  TokenChoice how = {};
  at::Tensor logits_UE = {}, chosen_UK = {}, d_weight_UK = {}, d_scores_UE = {};
  at::Tensor d_logits_UE = {};
};

struct KernelTable {
  std::function<void(const at::Tensor& source_SD, const at::Tensor& index_N, const at::Tensor& out_ND)>
      gather_rows;
  std::function<void(const at::Tensor& rows_AD, const at::Tensor& offsets_U1, const at::Tensor& row_of_N,
                     const at::Tensor& out_UD)>
      sum_rows;
  std::function<void(const at::Tensor& x_UD, const at::Tensor& offsets_U1, const at::Tensor& row_of_N,
                     const at::Tensor& out_AD)>
      permute_rows;
  // scale_A, d_scale_A: undefined is 1, not wanted.
  std::function<void(const at::Tensor& h_A2F, const at::Tensor& scale_A, const at::Tensor& act_AF)>
      swiglu_forward;
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
  std::function<bool(const TokenChoice& how, int64_t num_experts, c10::ScalarType type)> takes_router;
  std::function<void(const RouterPass& pass)> router;
  std::function<void(const RouterGradient& gradient)> router_backward;
  std::function<SortedPairs(const at::Tensor& expert_N, const at::Tensor& kept_N, int64_t num_experts)>
      sort_pairs;
  std::function<void(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& exp_avg,
                     const at::Tensor& exp_avg_sq, const AdamWArguments& step)>
      adamw;
  std::function<ExpertOutputs(const ExpertPass& pass)> experts;
  std::function<ExpertGradients(const ExpertPass& pass, const at::Tensor& h_A2F, const at::Tensor& d_y_AD)>
      experts_backward;
  // Whether at::_flash_attention_forward runs here on values stored so.
  std::function<bool(c10::ScalarType stored, int64_t head_width)> attention_takes_ranges;
  // Throws Error where the device records nothing.
  std::function<std::unique_ptr<DeviceGraphs>()> graphs;
};

// visit(name, function) for every entry.
template <class Table, class Visit>
void for_each_entry(Table& t, Visit visit) {
  visit("gather_rows", t.gather_rows);
  visit("sum_rows", t.sum_rows);
  visit("permute_rows", t.permute_rows);
  visit("swiglu_forward", t.swiglu_forward);
  visit("swiglu_backward", t.swiglu_backward);
  visit("rms_norm_forward", t.rms_norm_forward);
  visit("rms_norm_backward", t.rms_norm_backward);
  visit("rope", t.rope);
  visit("select_top_k", t.select_top_k);
  visit("takes_router", t.takes_router);
  visit("router", t.router);
  visit("router_backward", t.router_backward);
  visit("sort_pairs", t.sort_pairs);
  visit("adamw", t.adamw);
  visit("experts", t.experts);
  visit("experts_backward", t.experts_backward);
  visit("attention_takes_ranges", t.attention_takes_ranges);
  visit("graphs", t.graphs);
}

// The kernels of the device that `t` lives on. Throws Error, naming `what` and the device, when there are
// none.
const KernelTable& kernels_of(const at::Tensor& t, const char* what);
const KernelTable& kernels_of(c10::DeviceType device, const char* what);

// A device whose kernels are installed when somebody first asks for them: `load` does it, or says why it
// cannot.
void offer_device(c10::DeviceType device, std::function<std::string()> load);

// Why there are no kernels for a device; empty: there are. Loads what was offered.
std::string absence_of(c10::DeviceType device);

// The CPU's table is there from the start; a program with other devices gives theirs before it computes.
// Returns the table that was there, all entries empty if none.
KernelTable install_kernels(c10::DeviceType device, KernelTable table);

}  // namespace conclave::ops
