// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/expert_mlp.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "activation.h"
#include "conclave/ops/product.h"
#include "rows.h"
#include "storage.h"

namespace conclave::ops {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int64_t padded_rows(int64_t count, c10::ScalarType product) {
  return product == at::kBFloat16 ? (count + 63) / 64 * 64 : count;
}

// The first rows of `out` receive a b; where types or padding differ, through a product of its own.
void product_into(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (out.scalar_type() == a.scalar_type() && out.size(0) == a.size(0)) {
    auto target = out;
    at::mm_out(target, a, b);
  } else {
    out.copy_(a.mm(b).narrow(0, 0, out.size(0)));
  }
}

// Rows [first, first + count) in the type of the product, with zero rows up to `padded`.
at::Tensor product_rows(const at::Tensor& rows_AX, const ExpertRows& r, int64_t padded,
                        c10::ScalarType product) {
  const auto rows = rows_AX.narrow(0, r.first, r.count);
  if (rows.scalar_type() == product && padded == r.count) return rows;
  auto out = at::empty({padded, rows.size(1)}, rows.options().dtype(product));
  out.narrow(0, 0, r.count).copy_(rows);
  out.narrow(0, r.count, padded - r.count).zero_();
  return out;
}

// The scales of an expert's rows; those of padding rows are zero.
at::Tensor padded_scales(const at::Tensor& s_A, const ExpertRows& r, int64_t padded) {
  const auto s = s_A.narrow(0, r.first, r.count);
  return padded == r.count ? s : at::constant_pad_nd(s, {0, padded - r.count});
}

struct ExpertMlp : public torch::autograd::Function<ExpertMlp> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& source_SD, const at::Tensor& weights_A,
                            const at::Tensor& w13_E2FD, const at::Tensor& w2_EDF, const Rows& rows,
                            c10::ScalarType product) {
    const auto x_SD = source_SD.contiguous();
    const auto s_A = weights_A.contiguous();
    const auto stored = x_SD.options();
    auto h_A2F = at::empty({rows.num_rows(), w13_E2FD.size(1)}, stored);
    auto y_AD = at::empty({rows.num_rows(), x_SD.size(1)}, stored);
    const auto& index_A = rows.row_source_A;
    for_each_expert(rows.expert_offsets, [&](const ExpertRows& r) {
      const int64_t padded = padded_rows(r.count, product);
      const auto h = h_A2F.narrow(0, r.first, r.count);
      product_into(h, gather(x_SD, index_A.narrow(0, r.first, r.count), padded, product),
                   w13_E2FD[r.expert].to(product).t());
      const auto act = activate(product_rows(h_A2F, r, padded, h.scalar_type()), product);
      const auto w2 = w2_EDF[r.expert].to(product).t();
      const auto y = y_AD.narrow(0, r.first, r.count), s = s_A.narrow(0, r.first, r.count);
      if (y.scalar_type() == product && padded == r.count) {
        product_into(y, act, w2);
        scale_rows(y, s, y);
      } else {
        scale_rows(act.mm(w2), s, y);
      }
    });
    ctx->save_for_backward(
        {x_SD, s_A, w13_E2FD, w2_EDF, h_A2F, rows.row_source_A, rows.source_offsets_S1, rows.rows_N});
    ctx->saved_data["offsets"] = rows.expert_offsets;
    ctx->saved_data["product"] = static_cast<int64_t>(product);
    return y_AD;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x_SD = saved[0], &s_A = saved[1], &w13 = saved[2], &w2 = saved[3], &h_A2F = saved[4];
    const auto offsets = ctx->saved_data["offsets"].toIntVector();
    const auto product = static_cast<c10::ScalarType>(ctx->saved_data["product"].toInt());
    const auto d_y_AD = grads[0].contiguous();

    // Frozen weights get no gradient, not even a passing one.
    const auto d_w13 = ctx->needs_input_grad(2) ? at::empty_like(w13) : at::Tensor();
    const auto d_w2 = ctx->needs_input_grad(3) ? at::empty_like(w2) : at::Tensor();
    auto d_s_A = at::empty_like(s_A);
    auto d_x_AD = at::empty(d_y_AD.sizes(), d_y_AD.options().dtype(product));
    const auto& index_A = saved[5];
    for_each_expert(offsets, [&](const ExpertRows& r) {
      const int64_t padded = padded_rows(r.count, product);
      const auto d_y = product_rows(d_y_AD, r, padded, product);
      const auto h = product_rows(h_A2F, r, padded, h_A2F.scalar_type());
      const auto s = padded_scales(s_A, r, padded);
      auto d_s = at::empty_like(s);
      const auto g = activate_backward(h, d_y.mm(w2[r.expert].to(product)), s, d_s);
      d_s_A.narrow(0, r.first, r.count).copy_(d_s.narrow(0, 0, r.count));
      if (d_w2.defined()) product_into(d_w2[r.expert], d_y.t(), g.scaled_act_AF);
      if (d_w13.defined()) {
        product_into(d_w13[r.expert], g.d_h_A2F.t(),
                     gather(x_SD, index_A.narrow(0, r.first, r.count), padded, product));
      }
      product_into(d_x_AD.narrow(0, r.first, r.count), g.d_h_A2F, w13[r.expert].to(product));
    });
    for (size_t e = 0; e + 1 < offsets.size(); ++e) {
      if (offsets[e + 1] > offsets[e]) continue;
      if (d_w13.defined()) d_w13[static_cast<int64_t>(e)].zero_();
      if (d_w2.defined()) d_w2[static_cast<int64_t>(e)].zero_();
    }
    const auto d_source = sum_rows(d_x_AD, saved[6], saved[7], x_SD.size(0), x_SD.scalar_type());
    return {d_source, d_s_A, d_w13, d_w2, at::Tensor(), at::Tensor()};
  }
};

struct CombineRows : public torch::autograd::Function<CombineRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows_AD, const at::Tensor& unit_of_row_A,
                            const at::Tensor& unit_offsets_U1, const at::Tensor& row_of_pair_N) {
    ctx->save_for_backward({unit_of_row_A});
    return sum_rows(rows_AD.contiguous(), unit_offsets_U1, row_of_pair_N, unit_offsets_U1.size(0) - 1,
                    rows_AD.scalar_type());
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto unit_of_row_A = ctx->get_saved_variables()[0];
    const auto d_out = grads[0].contiguous();
    return {gather(d_out, unit_of_row_A, unit_of_row_A.size(0), d_out.scalar_type()), at::Tensor(),
            at::Tensor(), at::Tensor()};
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
  CONCLAVE_CHECK(weights_A.dim() == 1 && weights_A.size(0) == rows.num_rows() &&
                     weights_A.scalar_type() == wide && w13_E2FD.scalar_type() == wide &&
                     w2_EDF.scalar_type() == wide,
                 fmt::format("expert_mlp: {} rows need one {} combine weight per row and {} expert weights",
                             c10::toString(stored), c10::toString(wide), c10::toString(wide)));
  return ExpertMlp::apply(rows.source_SD, weights_A, w13_E2FD, w2_EDF, rows,
                          product.value_or(product_dtype(stored)));
}

at::Tensor combine_rows(const at::Tensor& rows_AD, const at::Tensor& unit_of_row_A,
                        const at::Tensor& unit_offsets_U1, const at::Tensor& row_of_pair_N) {
  return CombineRows::apply(rows_AD, unit_of_row_A, unit_offsets_U1, row_of_pair_N);
}

}  // namespace conclave::ops
