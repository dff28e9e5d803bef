// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include "activation.h"
#include "conclave/ops/grouped_experts.h"
#include "rows.h"
#include "storage.h"

namespace conclave::ops {

namespace {

// at::_grouped_mm wants rows of whole 16 bytes, and counts groups in 10 bits.
constexpr int64_t kAlignment = 16, kMostGroups = 1023;

// Products of the rows of each expert.
class Groups {
 public:
  Groups(const ExpertPass& pass, const GroupedProducts& grouped) : offsets_E1_(pass.offsets_E1) {
    const int64_t num_experts = offsets_E1_.size(0) - 1;
    const auto whole = [&](int64_t width) {
      return width * static_cast<int64_t>(c10::elementSize(pass.product)) % kAlignment == 0;
    };
    together_ = grouped(pass.product) && whole(pass.w2_EDF.size(1)) && whole(pass.w2_EDF.size(2)) &&
                num_experts >= 1 && num_experts <= kMostGroups && pass.row_source_A.size(0) > 0;
    if (together_) {
      ends_E_ = offsets_E1_.narrow(0, 1, num_experts);
      return;
    }
    const auto on_host = offsets_E1_.cpu();  // waits
    experts_ = busy_experts({const_data<int32_t>(on_host), const_data<int32_t>(on_host) + num_experts + 1});
  }

  // rows [A, K] times their expert's weights [E, K, N]: [A, N].
  at::Tensor times(const at::Tensor& rows_AK, const at::Tensor& weights_EKN) const {
    if (together_) return at::_grouped_mm(rows_AK, weights_EKN, ends_E_);
    auto out = at::empty({rows_AK.size(0), weights_EKN.size(2)}, rows_AK.options());
    for (const auto& r : experts_) {
      auto part = out.narrow(0, r.first, r.count);
      at::mm_out(part, rows_AK.narrow(0, r.first, r.count), weights_EKN[r.expert]);
    }
    return out;
  }

  // The sum over an expert's rows of left^T right, [E, M, N]; zero for an expert without rows. Rows are
  // contiguous: the one layout in which groups of any size, empty ones too, are allowed.
  at::Tensor summed(const at::Tensor& left_AM, const at::Tensor& right_AN) const {
    if (together_) return at::_grouped_mm(left_AM.t(), right_AN, ends_E_);
    auto out = at::zeros({offsets_E1_.size(0) - 1, left_AM.size(1), right_AN.size(1)}, left_AM.options());
    for (const auto& r : experts_) {
      auto part = out[r.expert];
      at::mm_out(part, left_AM.narrow(0, r.first, r.count).t(), right_AN.narrow(0, r.first, r.count));
    }
    return out;
  }

 private:
  at::Tensor offsets_E1_, ends_E_;  // int32
  bool together_ = false;
  std::vector<ExpertRows> experts_;  // otherwise
};

at::Tensor gathered(const ExpertPass& pass) {
  if (pass.x_SD.scalar_type() == pass.product)
    return permute(pass.x_SD, pass.source_offsets_S1, pass.rows_N, pass.row_source_A.size(0));
  return gather(pass.x_SD, pass.row_source_A, pass.row_source_A.size(0), pass.product);
}

}  // namespace

std::function<ExpertOutputs(const ExpertPass&)> grouped_experts(GroupedProducts grouped) {
  return [grouped = std::move(grouped)](const ExpertPass& pass) {
    const Groups groups(pass, grouped);
    const auto stored = pass.x_SD.scalar_type();
    const auto h_A2F =
        groups.times(gathered(pass), pass.w13_E2FD.to(pass.product).transpose(1, 2)).to(stored);
    const auto act_AF = activate(h_A2F, pass.s_A, pass.product);
    return ExpertOutputs{
        .h_A2F = h_A2F,
        .y_AD = groups.times(act_AF, pass.w2_EDF.to(pass.product).transpose(1, 2)).to(stored)};
  };
}

std::function<ExpertGradients(const ExpertPass&, const at::Tensor& h_A2F, const at::Tensor& d_y_AD)>
grouped_experts_backward(GroupedProducts grouped) {
  return [grouped = std::move(grouped)](const ExpertPass& pass, const at::Tensor& h_A2F,
                                        const at::Tensor& d_y_AD) {
    const Groups groups(pass, grouped);
    const auto d_y = d_y_AD.to(pass.product);
    ExpertGradients d{.s_A = at::empty_like(pass.s_A)};
    const auto g = activate_backward(h_A2F, groups.times(d_y, pass.w2_EDF.to(pass.product)), pass.s_A, d.s_A);
    if (pass.wants_w2) d.w2_EDF = groups.summed(d_y, g.scaled_act_AF).to(pass.w2_EDF.scalar_type());
    if (pass.wants_w13) d.w13_E2FD = groups.summed(g.d_h_A2F, gathered(pass)).to(pass.w13_E2FD.scalar_type());
    d.x_AD = groups.times(g.d_h_A2F, pass.w13_E2FD.to(pass.product));
    return d;
  };
}

}  // namespace conclave::ops
