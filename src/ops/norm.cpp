// SPDX-License-Identifier: Apache-2.0
#include "norm.h"

#include <algorithm>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/ops/functions.h"
#include "rope.h"
#include "storage.h"

namespace conclave::ops {

namespace {

constexpr int64_t kNormGrain = 64;
// Rows whose part of d_weight is summed by one loop. Independent of the number of threads, so the sum is too.
constexpr int64_t kNormChunk = 256;

struct RmsNorm : public torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_RD,
                            const at::Tensor& weight_D, double eps) {
    const auto x = x_RD.contiguous(), weight = weight_D.contiguous();
    auto out = at::empty_like(x);
    auto inv_R = at::empty({x.size(0)}, weight.options());
    dispatch_storage(x, "rms_norm", [&](auto stored) {
      using T = decltype(stored);
      using W = kernels::wide_t<T>;
      at::parallel_for(0, x.size(0), kNormGrain, [&](int64_t begin, int64_t end) {
        kernels::rms_norm_forward<T>(const_data<T>(x), const_data<W>(weight), eps, mutable_data<T>(out),
                                     mutable_data<W>(inv_R), x.size(1), begin, end);
      });
    });
    ctx->save_for_backward({x, weight, inv_R});
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &inv_R = saved[2];
    const auto d_out = grads[0].contiguous();
    auto d_x = at::empty_like(x);
    const int64_t rows = x.size(0), width = x.size(1), num_chunks = (rows + kNormChunk - 1) / kNormChunk;
    auto partial_CD = at::zeros({num_chunks, width}, weight.options());
    dispatch_storage(x, "rms_norm", [&](auto stored) {
      using T = decltype(stored);
      using W = kernels::wide_t<T>;
      at::parallel_for(0, num_chunks, 1, [&](int64_t first, int64_t last) {
        for (int64_t chunk = first; chunk < last; ++chunk) {
          kernels::rms_norm_backward<T>(const_data<T>(x), const_data<W>(weight), const_data<W>(inv_R),
                                        const_data<T>(d_out), mutable_data<T>(d_x),
                                        mutable_data<W>(partial_CD) + chunk * width, width,
                                        chunk * kNormChunk, std::min(rows, (chunk + 1) * kNormChunk));
        }
      });
    });
    return {d_x, partial_CD.sum(0), at::Tensor()};
  }
};

at::Tensor rotate(const at::Tensor& x_BSHP, const at::Tensor& cos, const at::Tensor& sin, int direction) {
  const auto x = x_BSHP.contiguous();
  auto out = at::empty_like(x);
  dispatch_storage(x, "rope", [&](auto stored) {
    using T = decltype(stored);
    using W = kernels::wide_t<T>;
    at::parallel_for(0, x.size(0) * x.size(1), kNormGrain, [&](int64_t begin, int64_t end) {
      kernels::rope<T>(const_data<T>(x), const_data<W>(cos), const_data<W>(sin), mutable_data<T>(out),
                       x.size(2), x.size(3) / 2, direction, begin, end);
    });
  });
  return out;
}

struct Rope : public torch::autograd::Function<Rope> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_BSHP,
                            const at::Tensor& cos, const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return rotate(x_BSHP, cos, sin, 1);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rotate(grads[0], saved[0], saved[1], -1), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  CONCLAVE_CHECK(
      weight.dim() == 1 && x.size(-1) == weight.size(0) &&
          weight.scalar_type() == wide_dtype(x.scalar_type()),
      fmt::format("rms_norm: x [..., {}] {} with a weight of {} {}", x.size(-1),
                  c10::toString(x.scalar_type()), weight.numel(), c10::toString(weight.scalar_type())));
  return RmsNorm::apply(x.reshape({-1, x.size(-1)}), weight, eps).view(x.sizes());
}

at::Tensor rope(const at::Tensor& x_BHSP, const at::Tensor& cos, const at::Tensor& sin) {
  CONCLAVE_CHECK(x_BHSP.dim() == 4 && x_BHSP.size(3) % 2 == 0 && cos.sizes() == sin.sizes() &&
                     cos.numel() == x_BHSP.size(0) * x_BHSP.size(2) * (x_BHSP.size(3) / 2) &&
                     cos.scalar_type() == wide_dtype(x_BHSP.scalar_type()),
                 "rope: expected x [B, H, S, P] and cos, sin [B, 1, S, P / 2] in fp32, or fp64 beside fp64");
  return Rope::apply(x_BHSP.transpose(1, 2), cos.contiguous(), sin.contiguous()).transpose(1, 2);
}

}  // namespace conclave::ops
