// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/expert_mlp.h"

#include <torch/csrc/autograd/custom_function.h>

#include "conclave/ops/kernel_table.h"
#include "conclave/ops/product.h"
#include "rows.h"
#include "storage.h"

namespace conclave::ops {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ExpertMlp : public torch::autograd::Function<ExpertMlp> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& source_SD, const at::Tensor& weights_A,
                            const at::Tensor& w13_E2FD, const at::Tensor& w2_EDF, const Rows& rows,
                            c10::ScalarType product) {
    const ExpertPass pass{.x_SD = source_SD.contiguous(),
                          .s_A = weights_A.contiguous(),
                          .w13_E2FD = w13_E2FD,
                          .w2_EDF = w2_EDF,
                          .row_source_A = rows.row_source_A,
                          .offsets_E1 = rows.expert_offsets_E1,
                          .source_offsets_S1 = rows.source_offsets_S1,
                          .rows_N = rows.rows_N,
                          .product = product};
    const auto out = kernels_of(source_SD, "expert_mlp").experts(pass);
    ctx->save_for_backward({pass.x_SD, pass.s_A, w13_E2FD, w2_EDF, pass.row_source_A, pass.offsets_E1,
                            pass.source_offsets_S1, pass.rows_N, out.h_A2F});
    ctx->saved_data["product"] = static_cast<int64_t>(product);
    return out.y_AD;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    // Frozen weights get no gradient, not even a passing one.
    const ExpertPass pass{.x_SD = saved[0],
                          .s_A = saved[1],
                          .w13_E2FD = saved[2],
                          .w2_EDF = saved[3],
                          .row_source_A = saved[4],
                          .offsets_E1 = saved[5],
                          .source_offsets_S1 = saved[6],
                          .rows_N = saved[7],
                          .product = static_cast<c10::ScalarType>(ctx->saved_data["product"].toInt()),
                          .wants_w13 = ctx->needs_input_grad(2),
                          .wants_w2 = ctx->needs_input_grad(3)};
    const auto d =
        kernels_of(pass.x_SD, "expert_mlp").experts_backward(pass, saved[8], grads[0].contiguous());
    const auto d_source =
        sum_rows(d.x_AD, pass.source_offsets_S1, pass.rows_N, pass.x_SD.size(0), pass.x_SD.scalar_type());
    return {d_source, d.s_A, d.w13_E2FD, d.w2_EDF, at::Tensor(), at::Tensor()};
  }
};

struct CombineRows : public torch::autograd::Function<CombineRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows_AD,
                            const at::Tensor& unit_offsets_U1, const at::Tensor& row_of_pair_N, bool whole) {
    ctx->save_for_backward({unit_offsets_U1, row_of_pair_N});
    ctx->saved_data["rows"] = rows_AD.size(0);
    ctx->saved_data["whole"] = whole;
    return sum_rows(rows_AD.contiguous(), unit_offsets_U1, row_of_pair_N, unit_offsets_U1.size(0) - 1,
                    rows_AD.scalar_type());
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {permute(grads[0].contiguous(), saved[0], saved[1], ctx->saved_data["rows"].toInt(),
                    /*zero=*/!ctx->saved_data["whole"].toBool()),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor expert_mlp(const Rows& rows, const at::Tensor& weights_A, const at::Tensor& w13_E2FD,
                      const at::Tensor& w2_EDF, std::optional<c10::ScalarType> product) {
  const auto stored = rows.source_SD.scalar_type(), wide = wide_dtype(stored);
  CONCLAVE_CHECK(w13_E2FD.dim() == 3 && w2_EDF.dim() == 3 && w13_E2FD.size(0) == rows.num_experts() &&
                     w13_E2FD.size(2) == rows.source_SD.size(1) && w13_E2FD.size(1) == 2 * w2_EDF.size(2) &&
                     w2_EDF.size(1) == rows.source_SD.size(1) && w2_EDF.size(0) == rows.num_experts(),
                 "expert_mlp: weights must be [E, 2F, D] and [E, D, F] for rows of width D and E experts");
  CONCLAVE_CHECK(rows.rows_N.defined() && rows.source_offsets_S1.defined() &&
                     rows.source_offsets_S1.numel() == rows.source_SD.size(0) + 1,
                 "expert_mlp: rows need their inverse map, with one offset more than there are source rows");
  CONCLAVE_CHECK(weights_A.dim() == 1 && weights_A.size(0) == rows.num_rows() &&
                     weights_A.scalar_type() == wide && w13_E2FD.scalar_type() == wide &&
                     w2_EDF.scalar_type() == wide,
                 fmt::format("expert_mlp: {} rows need one {} combine weight per row and {} expert weights",
                             c10::toString(stored), c10::toString(wide), c10::toString(wide)));
  return ExpertMlp::apply(rows.source_SD, weights_A, w13_E2FD, w2_EDF, rows,
                          product.value_or(product_dtype(rows.source_SD)));
}

at::Tensor combine_rows(const at::Tensor& rows_AD, const at::Tensor& unit_offsets_U1,
                        const at::Tensor& row_of_pair_N, bool whole) {
  return CombineRows::apply(rows_AD, unit_offsets_U1, row_of_pair_N, whole);
}

}  // namespace conclave::ops
