// SPDX-License-Identifier: Apache-2.0
#include "cpu_kernels.h"

#include <algorithm>

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "adamw.h"
#include "conclave/core/error.h"
#include "experts.h"
#include "norm.h"
#include "permute.h"
#include "rope.h"
#include "routing.h"
#include "storage.h"
#include "swiglu.h"

namespace conclave::ops {

namespace {

constexpr int64_t kRowGrain = 64;
// Rows whose part of d_weight is summed by one loop. Independent of the number of threads, so the sum is too.
constexpr int64_t kNormChunk = 256;

void cpu_gather_rows(const at::Tensor& source, const at::Tensor& index, const at::Tensor& out) {
  dispatch_pair(source, out.scalar_type(), [&]<class In, class Out>(In, Out) {
    at::parallel_for(0, index.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::gather_rows<In, Out>(const_data<In>(source), const_data<int32_t>(index),
                                    mutable_data<Out>(out), out.size(1), begin, end);
    });
  });
}

void cpu_sum_rows(const at::Tensor& rows, const at::Tensor& offsets, const at::Tensor& row_of,
                  const at::Tensor& out) {
  dispatch_pair(rows, out.scalar_type(), [&]<class In, class Out>(In, Out) {
    at::parallel_for(0, out.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::sum_rows<In, Out>(const_data<In>(rows), const_data<int32_t>(offsets),
                                 const_data<int32_t>(row_of), nullptr, mutable_data<Out>(out), out.size(1),
                                 begin, end);
    });
  });
}

void cpu_permute_rows(const at::Tensor& x, const at::Tensor& offsets, const at::Tensor& row_of,
                      const at::Tensor& out) {
  dispatch_storage(x, "permute_rows", [&]<class T>(T) {
    at::parallel_for(0, x.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::permute_rows<T>(const_data<T>(x), const_data<int32_t>(offsets), const_data<int32_t>(row_of),
                               mutable_data<T>(out), out.size(1), begin, end);
    });
  });
}

void cpu_swiglu_forward(const at::Tensor& h, const at::Tensor& scale, const at::Tensor& act) {
  dispatch_activation(h, act.scalar_type(), [&]<class H, class A>(H, A) {
    at::parallel_for(0, h.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::swiglu_forward<H, A>(const_data<H>(h), optional_data<kernels::wide_t<A>>(scale),
                                    mutable_data<A>(act), act.size(1), begin, end);
    });
  });
}

void cpu_swiglu_backward(const at::Tensor& h, const at::Tensor& d_act, const at::Tensor& scale,
                         const at::Tensor& d_h, const at::Tensor& scaled_act, const at::Tensor& d_scale) {
  dispatch_activation(h, d_act.scalar_type(), [&]<class H, class A>(H, A) {
    using W = kernels::wide_t<A>;
    at::parallel_for(0, h.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::swiglu_backward<H, A>(const_data<H>(h), const_data<A>(d_act), optional_data<W>(scale),
                                     mutable_data<A>(d_h), mutable_data<A>(scaled_act),
                                     optional_data<W>(d_scale), d_act.size(1), begin, end);
    });
  });
}

void cpu_rms_norm_forward(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& out,
                          const at::Tensor& inv) {
  dispatch_storage(x, "rms_norm", [&]<class T>(T) {
    using W = kernels::wide_t<T>;
    at::parallel_for(0, x.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::rms_norm_forward<T>(const_data<T>(x), const_data<W>(weight), eps, mutable_data<T>(out),
                                   mutable_data<W>(inv), x.size(1), begin, end);
    });
  });
}

void cpu_rms_norm_backward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& inv,
                           const at::Tensor& d_out, const at::Tensor& d_x, const at::Tensor& d_weight) {
  const int64_t rows = x.size(0), width = x.size(1), num_chunks = (rows + kNormChunk - 1) / kNormChunk;
  const auto partial_CD = at::zeros({num_chunks, width}, weight.options());
  dispatch_storage(x, "rms_norm", [&]<class T>(T) {
    using W = kernels::wide_t<T>;
    at::parallel_for(0, num_chunks, 1, [&](int64_t first, int64_t last) {
      for (int64_t chunk = first; chunk < last; ++chunk) {
        kernels::rms_norm_backward<T>(const_data<T>(x), const_data<W>(weight), const_data<W>(inv),
                                      const_data<T>(d_out), mutable_data<T>(d_x),
                                      mutable_data<W>(partial_CD) + chunk * width, width, chunk * kNormChunk,
                                      std::min(rows, (chunk + 1) * kNormChunk));
      }
    });
  });
  d_weight.copy_(partial_CD.sum(0));
}

void cpu_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, int direction,
              const at::Tensor& out) {
  dispatch_storage(x, "rope", [&]<class T>(T) {
    using W = kernels::wide_t<T>;
    at::parallel_for(0, x.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::rope<T>(const_data<T>(x), const_data<W>(cos), const_data<W>(sin), mutable_data<T>(out),
                       x.size(1), x.size(2) / 2, direction, begin, end);
    });
  });
}

void cpu_select_top_k(const at::Tensor& scores, const at::Tensor& chosen) {
  AT_DISPATCH_FLOATING_TYPES(scores.scalar_type(), "select_top_k", [&] {
    at::parallel_for(0, scores.size(0), 256, [&](int64_t begin, int64_t end) {
      kernels::select_top_k(const_data<scalar_t>(scores), mutable_data<int32_t>(chosen), scores.size(1),
                            chosen.size(1), begin, end);
    });
  });
}

constexpr int64_t kRouterChunk = 256;  // units of which one loop counts the choices

bool cpu_takes_router(const TokenChoice& how, int64_t num_experts, c10::ScalarType type) {
  return (type == at::kFloat || type == at::kDouble) &&
         kernels::is_possible(router_shape(how, 0, num_experts));
}

void cpu_router(const RouterPass& pass) {
  const int64_t units = pass.logits_UE.size(0), experts = pass.logits_UE.size(1),
                chunks = (units + kRouterChunk - 1) / kRouterChunk;
  const auto counts_CE = at::zeros({chunks, experts}, pass.counts_E.options()),
             non_finite_C = at::zeros({chunks}, pass.counts_E.options());
  AT_DISPATCH_FLOATING_TYPES(pass.logits_UE.scalar_type(), "router", [&] {
    const auto all = router_forward_of<scalar_t>(pass);
    at::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
      for (int64_t chunk = first; chunk < last; ++chunk) {
        auto part = all;
        part.counts = mutable_data<int32_t>(counts_CE) + chunk * experts;
        part.non_finite = mutable_data<int32_t>(non_finite_C) + chunk;
        kernels::router_forward(part, chunk * kRouterChunk, std::min(units, (chunk + 1) * kRouterChunk));
      }
    });
  });
  pass.counts_E.copy_(counts_CE.sum(0));
  pass.non_finite.copy_(non_finite_C.sum().unsqueeze(0));
}

void cpu_router_backward(const RouterGradient& gradient) {
  AT_DISPATCH_FLOATING_TYPES(gradient.logits_UE.scalar_type(), "router", [&] {
    const auto all = router_backward_of<scalar_t>(gradient);
    at::parallel_for(0, gradient.logits_UE.size(0), kRouterChunk,
                     [&](int64_t begin, int64_t end) { kernels::router_backward(all, begin, end); });
  });
}

SortedPairs cpu_sort_pairs(const at::Tensor& expert_N, const at::Tensor& kept_N, int64_t num_experts) {
  SortedPairs sorted;
  const int64_t n = expert_N.numel();
  std::vector<int64_t> offsets(static_cast<size_t>(num_experts) + 1);
  sorted.row_of_pair_N = at::empty({n}, expert_N.options());
  const auto pair_of_row = at::empty({n}, expert_N.options());
  const int64_t rows = kernels::sort_pairs_by_expert(
      const_data<int32_t>(expert_N), optional_data<uint8_t>(kept_N), n, num_experts, offsets.data(),
      mutable_data<int32_t>(pair_of_row), mutable_data<int32_t>(sorted.row_of_pair_N));
  sorted.pair_of_row_A = pair_of_row.narrow(0, 0, rows);
  sorted.expert_offsets_E1 = at::empty({num_experts + 1}, expert_N.options());
  std::copy(offsets.begin(), offsets.end(), mutable_data<int32_t>(sorted.expert_offsets_E1));
  return sorted;
}

void cpu_adamw(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& exp_avg,
               const at::Tensor& exp_avg_sq, const AdamWArguments& arguments) {
  const auto step = kernel_step(arguments);
  AT_DISPATCH_FLOATING_TYPES(param.scalar_type(), "adamw", [&] {
    at::parallel_for(0, param.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      kernels::adamw(mutable_data<scalar_t>(param), const_data<scalar_t>(grad),
                     mutable_data<scalar_t>(exp_avg), mutable_data<scalar_t>(exp_avg_sq), step, begin, end);
    });
  });
}

std::unique_ptr<DeviceGraphs> no_graphs() {
  throw Error("the CPU computes at once: there are no launches to record");
}

}  // namespace

KernelTable cpu_kernels() {
  return {.gather_rows = cpu_gather_rows,
          .sum_rows = cpu_sum_rows,
          .permute_rows = cpu_permute_rows,
          .swiglu_forward = cpu_swiglu_forward,
          .swiglu_backward = cpu_swiglu_backward,
          .rms_norm_forward = cpu_rms_norm_forward,
          .rms_norm_backward = cpu_rms_norm_backward,
          .rope = cpu_rope,
          .select_top_k = cpu_select_top_k,
          .takes_router = cpu_takes_router,
          .router = cpu_router,
          .router_backward = cpu_router_backward,
          .sort_pairs = cpu_sort_pairs,
          .adamw = cpu_adamw,
          .experts = experts_one_by_one,
          .experts_backward = experts_one_by_one_backward,
          .attention_takes_ranges = [](c10::ScalarType, int64_t) { return false; },
          .graphs = no_graphs};
}

}  // namespace conclave::ops
