// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

#include "activation.h"
#include "experts.h"
#include "rows.h"
#include "storage.h"

namespace conclave::ops {

namespace {

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

std::vector<int64_t> on_host(const at::Tensor& offsets_E1) {
  const auto* offsets = const_data<int32_t>(offsets_E1);
  return {offsets, offsets + offsets_E1.numel()};
}

}  // namespace

ExpertOutputs experts_one_by_one(const ExpertPass& pass) {
  const int64_t num_rows = pass.row_source_A.size(0);
  const auto stored = pass.x_SD.options();
  const ExpertOutputs out{.h_A2F = at::empty({num_rows, pass.w13_E2FD.size(1)}, stored),
                          .y_AD = at::empty({num_rows, pass.x_SD.size(1)}, stored)};
  for_each_expert(on_host(pass.offsets_E1), [&](const ExpertRows& r) {
    const int64_t padded = padded_rows(r.count, pass.product);
    const auto h = out.h_A2F.narrow(0, r.first, r.count);
    product_into(h, gather(pass.x_SD, pass.row_source_A.narrow(0, r.first, r.count), padded, pass.product),
                 pass.w13_E2FD[r.expert].to(pass.product).t());
    const auto act = activate(product_rows(out.h_A2F, r, padded, h.scalar_type()),
                              padded_scales(pass.s_A, r, padded), pass.product);
    product_into(out.y_AD.narrow(0, r.first, r.count), act, pass.w2_EDF[r.expert].to(pass.product).t());
  });
  return out;
}

ExpertGradients experts_one_by_one_backward(const ExpertPass& pass, const at::Tensor& h_A2F,
                                            const at::Tensor& d_y_AD) {
  const auto product = pass.product;
  const auto offsets = on_host(pass.offsets_E1);
  ExpertGradients d{.x_AD = at::empty(d_y_AD.sizes(), d_y_AD.options().dtype(product)),
                    .s_A = at::empty_like(pass.s_A),
                    .w13_E2FD = pass.wants_w13 ? at::empty_like(pass.w13_E2FD) : at::Tensor(),
                    .w2_EDF = pass.wants_w2 ? at::empty_like(pass.w2_EDF) : at::Tensor()};
  for_each_expert(offsets, [&](const ExpertRows& r) {
    const int64_t padded = padded_rows(r.count, product);
    const auto d_y = product_rows(d_y_AD, r, padded, product);
    const auto h = product_rows(h_A2F, r, padded, h_A2F.scalar_type());
    const auto s = padded_scales(pass.s_A, r, padded);
    auto d_s = at::empty_like(s);
    const auto g = activate_backward(h, d_y.mm(pass.w2_EDF[r.expert].to(product)), s, d_s);
    d.s_A.narrow(0, r.first, r.count).copy_(d_s.narrow(0, 0, r.count));
    if (d.w2_EDF.defined()) product_into(d.w2_EDF[r.expert], d_y.t(), g.scaled_act_AF);
    if (d.w13_E2FD.defined()) {
      product_into(d.w13_E2FD[r.expert], g.d_h_A2F.t(),
                   gather(pass.x_SD, pass.row_source_A.narrow(0, r.first, r.count), padded, product));
    }
    product_into(d.x_AD.narrow(0, r.first, r.count), g.d_h_A2F, pass.w13_E2FD[r.expert].to(product));
  });
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    if (offsets[e + 1] > offsets[e]) continue;
    if (d.w13_E2FD.defined()) d.w13_E2FD[static_cast<int64_t>(e)].zero_();
    if (d.w2_EDF.defined()) d.w2_EDF[static_cast<int64_t>(e)].zero_();
  }
  return d;
}

}  // namespace conclave::ops
