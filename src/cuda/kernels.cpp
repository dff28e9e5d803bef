// SPDX-License-Identifier: Apache-2.0
#include "conclave/cuda/kernels.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/where.h>

#include <c10/core/DeviceGuard.h>

#include "../ops/storage.h"
#include "conclave/ops/grouped_experts.h"
#include "norm.h"
#include "permute.h"
#include "rope.h"
#include "routing.h"
#include "swiglu.h"

namespace conclave::cuda {

namespace {

namespace device = kernels::cuda;
using ops::const_data;
using ops::mutable_data;
using ops::optional_data;

// The kernel goes through a row once for every choice.
constexpr int64_t kMaxChoices = 32;
constexpr int64_t kMaxFlashWidth = 256;

void check(device::Status status, const char* what) {
  CONCLAVE_CHECK(status == device::Status::kOk,
                 fmt::format("CUDA kernel {}: {}", what,
                             status == device::Status::kInvalid
                                 ? "it does not take this shape"
                                 : fmt::format("error {} of the runtime", static_cast<int>(status))));
}

// The table's functions; all of them launch in this stream.
struct Kernels {
  CUstream_st* (*stream)();

  void gather_rows(const at::Tensor& source, const at::Tensor& index, const at::Tensor& out) const {
    ops::dispatch_pair(source, out.scalar_type(), [&]<class In, class Out>(In, Out) {
      check(device::gather_rows<In, Out>(const_data<In>(source), const_data<int32_t>(index),
                                         mutable_data<Out>(out), out.size(1), index.size(0), stream()),
            "gather_rows");
    });
  }

  void sum_rows(const at::Tensor& rows, const at::Tensor& offsets, const at::Tensor& row_of,
                const at::Tensor& out) const {
    ops::dispatch_pair(rows, out.scalar_type(), [&]<class In, class Out>(In, Out) {
      check(device::sum_rows<In, Out>(const_data<In>(rows), const_data<int32_t>(offsets),
                                      const_data<int32_t>(row_of), nullptr, mutable_data<Out>(out),
                                      out.size(1), out.size(0), stream()),
            "sum_rows");
    });
  }

  void permute_rows(const at::Tensor& x, const at::Tensor& offsets, const at::Tensor& row_of,
                    const at::Tensor& out) const {
    ops::dispatch_storage(x, "permute_rows", [&]<class T>(T) {
      check(
          device::permute_rows<T>(const_data<T>(x), const_data<int32_t>(offsets), const_data<int32_t>(row_of),
                                  mutable_data<T>(out), out.size(1), x.size(0), stream()),
          "permute_rows");
    });
  }

  void swiglu_forward(const at::Tensor& h, const at::Tensor& scale, const at::Tensor& act) const {
    ops::dispatch_activation(h, act.scalar_type(), [&]<class H, class A>(H, A) {
      check(device::swiglu_forward<H, A>(const_data<H>(h), optional_data<kernels::wide_t<A>>(scale),
                                         mutable_data<A>(act), act.size(1), act.size(0), stream()),
            "swiglu_forward");
    });
  }

  void swiglu_backward(const at::Tensor& h, const at::Tensor& d_act, const at::Tensor& scale,
                       const at::Tensor& d_h, const at::Tensor& scaled_act, const at::Tensor& d_scale) const {
    ops::dispatch_activation(h, d_act.scalar_type(), [&]<class H, class A>(H, A) {
      using W = kernels::wide_t<A>;
      check(device::swiglu_backward<H, A>(const_data<H>(h), const_data<A>(d_act), optional_data<W>(scale),
                                          mutable_data<A>(d_h), mutable_data<A>(scaled_act),
                                          optional_data<W>(d_scale), d_act.size(1), d_act.size(0), stream()),
            "swiglu_backward");
    });
  }

  void rms_norm_forward(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& out,
                        const at::Tensor& inv) const {
    ops::dispatch_storage(x, "rms_norm", [&]<class T>(T) {
      using W = kernels::wide_t<T>;
      check(device::rms_norm_forward<T>(const_data<T>(x), const_data<W>(weight), eps, mutable_data<T>(out),
                                        mutable_data<W>(inv), x.size(1), x.size(0), stream()),
            "rms_norm_forward");
    });
  }

  void rms_norm_backward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& inv,
                         const at::Tensor& d_out, const at::Tensor& d_x, const at::Tensor& d_weight) const {
    const auto partials = at::empty({device::rms_norm_partials(x.size(0)), x.size(1)}, weight.options());
    d_weight.zero_();
    ops::dispatch_storage(x, "rms_norm", [&]<class T>(T) {
      using W = kernels::wide_t<T>;
      check(
          device::rms_norm_backward<T>(const_data<T>(x), const_data<W>(weight), const_data<W>(inv),
                                       const_data<T>(d_out), mutable_data<T>(d_x), mutable_data<W>(d_weight),
                                       mutable_data<W>(partials), x.size(1), x.size(0), stream()),
          "rms_norm_backward");
    });
  }

  void rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, int direction,
            const at::Tensor& out) const {
    ops::dispatch_storage(x, "rope", [&]<class T>(T) {
      using W = kernels::wide_t<T>;
      check(device::rope<T>(const_data<T>(x), const_data<W>(cos), const_data<W>(sin), mutable_data<T>(out),
                            x.size(1), x.size(2) / 2, direction, x.size(0), stream()),
            "rope");
    });
  }

  void select_top_k(const at::Tensor& scores, const at::Tensor& chosen) const {
    const int64_t experts = scores.size(1), k = chosen.size(1);
    if (scores.scalar_type() == at::kFloat && experts <= device::kMaxSelectExperts && k <= kMaxChoices) {
      check(device::select_top_k<float>(const_data<float>(scores), mutable_data<int32_t>(chosen), experts, k,
                                        scores.size(0), stream()),
            "select_top_k");
      return;
    }
    // NaN last and then left out; the sort is stable, so equal scores keep their order.
    const auto nan = scores.isnan();
    const auto [sorted, order] = at::where(nan, at::empty({}, scores.options()).fill_(-INFINITY), scores)
                                     .sort(/*stable=*/true, 1, true);
    // Minus infinity may be a score: the numbers come first among them.
    const auto first = std::get<1>(nan.gather(1, order).to(at::kByte).sort(/*stable=*/true, 1, false));
    const auto best = order.gather(1, first).narrow(1, 0, k);
    chosen.copy_(best.masked_fill(nan.gather(1, best), -1));
  }

  static bool takes_router(const ops::TokenChoice& how, int64_t num_experts, c10::ScalarType type) {
    return type == at::kFloat && device::router_takes(ops::router_shape(how, 0, num_experts));
  }

  void router(const ops::RouterPass& pass) const {
    const c10::DeviceGuard on_its_device(pass.logits_UE.device());
    const auto all = ops::router_forward_of<float>(pass);
    const auto scratch =
        at::empty({device::router_scratch_bytes(all.shape)}, pass.counts_E.options().dtype(at::kByte));
    check(device::router_forward(all, scratch.mutable_data_ptr(), stream()), "router_forward");
  }

  void router_backward(const ops::RouterGradient& gradient) const {
    const c10::DeviceGuard on_its_device(gradient.logits_UE.device());
    check(device::router_backward(ops::router_backward_of<float>(gradient), stream()), "router_backward");
  }

  // By ATen, for more experts than the kernel counts.
  static ops::SortedPairs sort_pairs_by_key(const at::Tensor& expert_N, const at::Tensor& kept_N,
                                            int64_t num_experts) {
    auto left_out = expert_N.lt(0);
    if (kept_N.defined()) left_out = left_out.logical_or(kept_N.eq(0));
    const auto [key, pair] = expert_N.masked_fill(left_out, num_experts).sort(/*stable=*/true, 0, false);
    const auto gone = key.eq(num_experts);
    const auto row = at::arange(expert_N.numel(), expert_N.options()).masked_fill(gone, -1);
    return {.expert_offsets_E1 =
                at::searchsorted(key, at::arange(num_experts + 1, expert_N.options()), /*out_int32=*/true),
            .pair_of_row_A = pair.to(at::kInt).masked_fill(gone, -1),
            .row_of_pair_N = at::empty_like(expert_N).index_copy_(0, pair, row)};
  }

  ops::SortedPairs sort_pairs(const at::Tensor& expert_N, const at::Tensor& kept_N,
                              int64_t num_experts) const {
    if (num_experts > device::kMaxSortExperts) return sort_pairs_by_key(expert_N, kept_N, num_experts);
    const int64_t n = expert_N.numel();
    const auto ints = [&](int64_t count) { return at::empty({count}, expert_N.options()); };
    const auto offsets = ints(num_experts + 1), pair_of_row = ints(n), unit_of_row = ints(n),
               counts = ints(device::sort_pairs_counts(n, num_experts));
    pair_of_row.fill_(-1);
    const ops::SortedPairs sorted{
        .expert_offsets_E1 = offsets, .pair_of_row_A = pair_of_row, .row_of_pair_N = ints(n)};
    check(device::sort_pairs({.expert = const_data<int32_t>(expert_N),
                              .kept = optional_data<uint8_t>(kept_N),
                              .n = n,
                              .num_experts = num_experts,
                              .offsets = mutable_data<int32_t>(offsets),
                              .pair_of_row = mutable_data<int32_t>(pair_of_row),
                              .unit_of_row = mutable_data<int32_t>(unit_of_row),
                              .row_of_pair = mutable_data<int32_t>(sorted.row_of_pair_N)},
                             mutable_data<int32_t>(counts), stream()),
          "sort_pairs");
    return sorted;
  }

  void adamw(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& exp_avg,
             const at::Tensor& exp_avg_sq, const ops::AdamWArguments& arguments) const {
    const auto step = ops::kernel_step(arguments);
    const auto launch = [&]<class T>(T) {
      check(device::adamw<T, T>(mutable_data<T>(param), const_data<T>(grad), mutable_data<T>(exp_avg),
                                mutable_data<T>(exp_avg_sq), nullptr, step, param.numel(), stream()),
            "adamw");
    };
    if (param.scalar_type() == at::kFloat) return launch(float{});
    CONCLAVE_CHECK(param.scalar_type() == at::kDouble,
                   fmt::format("adamw_: parameters in {}; they are kept in fp32 or fp64",
                               c10::toString(param.scalar_type())));
    launch(double{});
  }
};

}  // namespace

ops::KernelTable make_kernels(CUstream_st* (*current_stream)(), const Abilities& abilities) {
  const auto grouped = [bf16 = abilities.grouped_bf16](c10::ScalarType product) {
    return bf16 && product == at::kBFloat16;
  };
  const auto takes_ranges = [flash = abilities.flash_attention](c10::ScalarType stored, int64_t head_width) {
    return flash && stored == at::kBFloat16 && head_width % 8 == 0 && head_width <= kMaxFlashWidth;
  };
  const Kernels kernels{current_stream};
  const auto bind = [kernels](auto method) {
    return [kernels, method](const at::Tensor& first, auto&&... others) {
      const c10::DeviceGuard on_its_device(first.device());
      return (kernels.*method)(first, others...);
    };
  };
  return {.gather_rows = bind(&Kernels::gather_rows),
          .sum_rows = bind(&Kernels::sum_rows),
          .permute_rows = bind(&Kernels::permute_rows),
          .swiglu_forward = bind(&Kernels::swiglu_forward),
          .swiglu_backward = bind(&Kernels::swiglu_backward),
          .rms_norm_forward = bind(&Kernels::rms_norm_forward),
          .rms_norm_backward = bind(&Kernels::rms_norm_backward),
          .rope = bind(&Kernels::rope),
          .select_top_k = bind(&Kernels::select_top_k),
          .takes_router = &Kernels::takes_router,
          .router = [kernels](const ops::RouterPass& pass) { kernels.router(pass); },
          .router_backward = [kernels](const ops::RouterGradient& g) { kernels.router_backward(g); },
          .sort_pairs = bind(&Kernels::sort_pairs),
          .adamw = bind(&Kernels::adamw),
          .experts = ops::grouped_experts(grouped),
          .experts_backward = ops::grouped_experts_backward(grouped),
          .attention_takes_ranges = takes_ranges,
          .graphs = abilities.graphs};
}

}  // namespace conclave::cuda
