// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/expert_mlp.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/core/error.h"
#include "permute.h"
#include "swiglu.h"

namespace conclave::ops {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRowGrain = 64;

void check_cpu_float(const at::Tensor& t, const char* name) {
  CONCLAVE_CHECK(t.device().is_cpu() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble),
                 fmt::format("{}: expected a float32 or float64 CPU tensor, got {} on {}", name,
                             c10::toString(t.scalar_type()), t.device().str()));
}

at::Tensor gather(const at::Tensor& source_SD, const int32_t* index, int64_t count) {
  auto out = at::empty({count, source_SD.size(1)}, source_SD.options());
  AT_DISPATCH_FLOATING_TYPES(source_SD.scalar_type(), "gather_rows", [&] {
    at::parallel_for(0, count, kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::gather_rows(source_SD.const_data_ptr<scalar_t>(), index, out.data_ptr<scalar_t>(),
                           source_SD.size(1), begin, end);
    });
  });
  return out;
}

at::Tensor sum(const at::Tensor& rows_AD, const at::Tensor& offsets, const at::Tensor& row_of,
               int64_t count) {
  auto out = at::empty({count, rows_AD.size(1)}, rows_AD.options());
  AT_DISPATCH_FLOATING_TYPES(rows_AD.scalar_type(), "sum_rows", [&] {
    at::parallel_for(0, count, kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::sum_rows(rows_AD.const_data_ptr<scalar_t>(), offsets.const_data_ptr<int32_t>(),
                        row_of.const_data_ptr<int32_t>(), out.data_ptr<scalar_t>(), rows_AD.size(1), begin,
                        end);
    });
  });
  return out;
}

at::Tensor activate(const at::Tensor& h_A2F) {
  const int64_t width = h_A2F.size(1) / 2;
  auto act_AF = at::empty({h_A2F.size(0), width}, h_A2F.options());
  AT_DISPATCH_FLOATING_TYPES(h_A2F.scalar_type(), "swiglu_forward", [&] {
    at::parallel_for(0, h_A2F.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::swiglu_forward(h_A2F.const_data_ptr<scalar_t>(), act_AF.data_ptr<scalar_t>(), width, begin,
                              end);
    });
  });
  return act_AF;
}

struct ActivationGradient {
  at::Tensor d_h_A2F, scaled_act_AF, d_scale_A;
};

// `scale_A` may be undefined (1). See kernels/swiglu.h.
ActivationGradient activate_backward(const at::Tensor& h_A2F, const at::Tensor& d_act_AF,
                                     const at::Tensor& scale_A) {
  ActivationGradient g{at::empty_like(h_A2F), at::empty_like(d_act_AF), {}};
  if (scale_A.defined()) g.d_scale_A = at::empty_like(scale_A);
  AT_DISPATCH_FLOATING_TYPES(h_A2F.scalar_type(), "swiglu_backward", [&] {
    const scalar_t* scale = scale_A.defined() ? scale_A.const_data_ptr<scalar_t>() : nullptr;
    scalar_t* d_scale = scale_A.defined() ? g.d_scale_A.data_ptr<scalar_t>() : nullptr;
    at::parallel_for(0, h_A2F.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::swiglu_backward(h_A2F.const_data_ptr<scalar_t>(), d_act_AF.const_data_ptr<scalar_t>(), scale,
                               g.d_h_A2F.data_ptr<scalar_t>(), g.scaled_act_AF.data_ptr<scalar_t>(), d_scale,
                               h_A2F.size(1) / 2, begin, end);
    });
  });
  return g;
}

// Calls body(expert, first row, number of rows) for every expert that has rows.
template <class Body>
void for_each_expert(const std::vector<int64_t>& offsets, Body body) {
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    if (offsets[e + 1] > offsets[e]) body(static_cast<int64_t>(e), offsets[e], offsets[e + 1] - offsets[e]);
  }
}

struct ExpertMlp : public torch::autograd::Function<ExpertMlp> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& source_SD, const at::Tensor& weights_A,
                            const at::Tensor& w13_E2FD, const at::Tensor& w2_EDF, const Rows& rows) {
    const auto x_SD = source_SD.contiguous();
    const auto s_A = weights_A.contiguous();
    const int64_t num_rows = rows.num_rows();
    auto h_A2F = at::empty({num_rows, w13_E2FD.size(1)}, x_SD.options());
    const int32_t* index = rows.row_source_A.const_data_ptr<int32_t>();
    for_each_expert(rows.expert_offsets, [&](int64_t e, int64_t first, int64_t count) {
      auto h = h_A2F.narrow(0, first, count);
      at::mm_out(h, gather(x_SD, index + first, count), w13_E2FD[e].t());
    });
    const auto act_AF = activate(h_A2F);
    auto y_AD = at::empty({num_rows, x_SD.size(1)}, x_SD.options());
    for_each_expert(rows.expert_offsets, [&](int64_t e, int64_t first, int64_t count) {
      auto y = y_AD.narrow(0, first, count);
      at::mm_out(y, act_AF.narrow(0, first, count), w2_EDF[e].t());
    });
    y_AD.mul_(s_A.unsqueeze(1));
    ctx->save_for_backward(
        {x_SD, s_A, w13_E2FD, w2_EDF, h_A2F, rows.row_source_A, rows.source_offsets_S1, rows.rows_N});
    ctx->saved_data["offsets"] = rows.expert_offsets;
    return y_AD;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x_SD = saved[0], &s_A = saved[1], &w13 = saved[2], &w2 = saved[3], &h_A2F = saved[4];
    const auto offsets = ctx->saved_data["offsets"].toIntVector();
    const auto d_y_AD = grads[0].contiguous();

    auto d_act_AF = at::empty({h_A2F.size(0), w2.size(2)}, x_SD.options());
    for_each_expert(offsets, [&](int64_t e, int64_t first, int64_t count) {
      auto d_act = d_act_AF.narrow(0, first, count);
      at::mm_out(d_act, d_y_AD.narrow(0, first, count), w2[e]);
    });
    const auto g = activate_backward(h_A2F, d_act_AF, s_A);

    // Frozen weights get no gradient, not even a passing one.
    auto d_w13 = ctx->needs_input_grad(2) ? at::zeros_like(w13) : at::Tensor();
    auto d_w2 = ctx->needs_input_grad(3) ? at::zeros_like(w2) : at::Tensor();
    auto d_x_AD = at::empty({h_A2F.size(0), x_SD.size(1)}, x_SD.options());
    const int32_t* index = saved[5].const_data_ptr<int32_t>();
    for_each_expert(offsets, [&](int64_t e, int64_t first, int64_t count) {
      const auto d_h = g.d_h_A2F.narrow(0, first, count);
      auto d_x = d_x_AD.narrow(0, first, count);
      if (d_w2.defined()) {
        auto d_w2_e = d_w2[e];
        at::mm_out(d_w2_e, d_y_AD.narrow(0, first, count).t(), g.scaled_act_AF.narrow(0, first, count));
      }
      if (d_w13.defined()) {
        auto d_w13_e = d_w13[e];
        at::mm_out(d_w13_e, d_h.t(), gather(x_SD, index + first, count));
      }
      at::mm_out(d_x, d_h, w13[e]);
    });
    const auto d_source = sum(d_x_AD, saved[6], saved[7], x_SD.size(0));
    return {d_source, g.d_scale_A, d_w13, d_w2, at::Tensor()};
  }
};

struct CombineRows : public torch::autograd::Function<CombineRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows_AD, const at::Tensor& unit_of_row_A,
                            const at::Tensor& unit_offsets_U1, const at::Tensor& row_of_pair_N) {
    ctx->save_for_backward({unit_of_row_A});
    return sum(rows_AD.contiguous(), unit_offsets_U1, row_of_pair_N, unit_offsets_U1.size(0) - 1);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto unit_of_row_A = ctx->get_saved_variables()[0];
    return {gather(grads[0].contiguous(), unit_of_row_A.const_data_ptr<int32_t>(), unit_of_row_A.size(0)),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct SwiGlu : public torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    return activate(gate_up);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {activate_backward(ctx->get_saved_variables()[0], grads[0].contiguous(), {}).d_h_A2F};
  }
};

}  // namespace

at::Tensor expert_mlp(const Rows& rows, const at::Tensor& weights_A, const at::Tensor& w13_E2FD,
                      const at::Tensor& w2_EDF) {
  check_cpu_float(rows.source_SD, "expert_mlp: rows");
  CONCLAVE_CHECK(w13_E2FD.dim() == 3 && w2_EDF.dim() == 3 && w13_E2FD.size(0) == rows.num_experts() &&
                     w13_E2FD.size(2) == rows.source_SD.size(1) && w13_E2FD.size(1) == 2 * w2_EDF.size(2) &&
                     w2_EDF.size(1) == rows.source_SD.size(1) && w2_EDF.size(0) == rows.num_experts(),
                 "expert_mlp: weights must be [E, 2F, D] and [E, D, F] for rows of width D and E experts");
  CONCLAVE_CHECK(weights_A.dim() == 1 && weights_A.size(0) == rows.num_rows() &&
                     weights_A.scalar_type() == rows.source_SD.scalar_type(),
                 "expert_mlp: one combine weight per row, in the dtype of the rows");
  return ExpertMlp::apply(rows.source_SD, weights_A, w13_E2FD, w2_EDF, rows);
}

at::Tensor combine_rows(const at::Tensor& rows_AD, const at::Tensor& unit_of_row_A,
                        const at::Tensor& unit_offsets_U1, const at::Tensor& row_of_pair_N) {
  check_cpu_float(rows_AD, "combine_rows: rows");
  return CombineRows::apply(rows_AD, unit_of_row_A, unit_offsets_U1, row_of_pair_N);
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  check_cpu_float(gate_up, "swiglu");
  CONCLAVE_CHECK(gate_up.size(-1) % 2 == 0,
                 "swiglu: the last dimension holds gate and up, so it must be even");
  auto shape = gate_up.sizes().vec();
  shape.back() /= 2;
  return SwiGlu::apply(gate_up.reshape({-1, gate_up.size(-1)}).contiguous()).view(shape);
}

}  // namespace conclave::ops
