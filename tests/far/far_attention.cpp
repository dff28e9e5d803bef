// SPDX-License-Identifier: Apache-2.0
// ATen's flash attention over ranges of tokens, as CUDA has it and the CPU has not: the contract that
// ops::attention relies on, by plain products. (total tokens, heads, width), starts of the ranges in int32.
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "conclave/core/error.h"
#include "far_device.h"

namespace conclave::far {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using OptionalInt = std::optional<int64_t>;

struct Range {
  at::Tensor q_HNP = {}, k_HNP = {}, v_HNP = {}, p_HNN = {};  // fp32; keys of all heads
  int64_t begin = 0, length = 0, repeats = 1;
};

at::Tensor heads_first(const at::Tensor& x, int64_t begin, int64_t length, int64_t repeats) {
  return x.narrow(0, begin, length).transpose(0, 1).to(at::kFloat).repeat_interleave(repeats, 0);
}

// Visits the ranges with what every one of them looks at. `starts` is read as a kernel reads it: the host
// does not wait.
template <class Body>
void for_each_range(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& starts,
                    int64_t longest, bool causal, Body body) {
  CONCLAVE_CHECK(q.dim() == 3 && q.is_contiguous() && k.is_contiguous() && v.is_contiguous() &&
                     q.scalar_type() == at::kBFloat16 && starts.scalar_type() == at::kInt,
                 "flash attention: bf16 rows (tokens, heads, width), contiguous, with starts in int32");
  std::vector<int32_t> start(static_cast<size_t>(starts.numel()));
  {
    const Inside inside;
    std::copy_n(starts.const_data_ptr<int32_t>(), start.size(), start.begin());
  }
  CONCLAVE_CHECK(start.front() == 0 && start.back() == q.size(0), "flash attention: ranges cover the tokens");
  for (size_t i = 0; i + 1 < start.size(); ++i) {
    Range r{.begin = start[i], .length = start[i + 1] - start[i], .repeats = q.size(1) / k.size(1)};
    CONCLAVE_CHECK(r.length <= longest, "flash attention: a range is longer than the longest");
    r.q_HNP = heads_first(q, r.begin, r.length, 1);
    r.k_HNP = heads_first(k, r.begin, r.length, r.repeats);
    r.v_HNP = heads_first(v, r.begin, r.length, r.repeats);
    auto scores = r.q_HNP.matmul(r.k_HNP.transpose(1, 2)).div(std::sqrt(static_cast<double>(q.size(2))));
    const auto place = at::arange(r.length, scores.options());
    if (causal) scores = scores.masked_fill(place.unsqueeze(0).gt(place.unsqueeze(1)), -INFINITY);
    r.p_HNN = scores.softmax(-1);
    body(r);
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const OptionalTensor& starts_q,
    const OptionalTensor& starts_k, int64_t longest_q, int64_t longest_k, double dropout, bool causal,
    bool debug, std::optional<double> scale, OptionalInt, OptionalInt, const OptionalTensor&,
    const OptionalTensor&) {
  CONCLAVE_CHECK(starts_q && starts_k && longest_q == longest_k && dropout == 0 && !debug && !scale,
                 "flash attention: not what ops::attention asks for");
  auto out = at::empty_like(q);
  for_each_range(q, k, v, *starts_q, longest_q, causal, [&](const Range& r) {
    out.narrow(0, r.begin, r.length).copy_(r.p_HNN.matmul(r.v_HNP).transpose(0, 1));
  });
  const auto none = at::empty({0}, q.options().dtype(at::kFloat));
  return {out, none, none, none, none};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& d_out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor&,
    const at::Tensor&, const at::Tensor& starts_q, const at::Tensor&, int64_t longest_q, int64_t, double,
    bool causal, const at::Tensor&, const at::Tensor&, std::optional<double>, OptionalInt, OptionalInt) {
  auto d_q = at::empty_like(q), d_k = at::empty_like(k), d_v = at::empty_like(v);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(2)));
  for_each_range(q, k, v, starts_q, longest_q, causal, [&](const Range& r) {
    const auto d_o = heads_first(d_out, r.begin, r.length, 1);
    const auto d_p = d_o.matmul(r.v_HNP.transpose(1, 2));
    const auto d_s = r.p_HNN.mul(d_p.sub(d_p.mul(r.p_HNN).sum(-1, true))).mul(scale);
    const auto put = [&](at::Tensor& d, const at::Tensor& d_HNP, int64_t repeats) {
      const auto summed = d_HNP.view({-1, repeats, r.length, d_HNP.size(2)}).sum(1);
      d.narrow(0, r.begin, r.length).copy_(summed.transpose(0, 1));
    };
    put(d_q, d_s.matmul(r.k_HNP), 1);
    put(d_k, d_s.transpose(1, 2).matmul(r.q_HNP).contiguous(), r.repeats);
    put(d_v, r.p_HNN.transpose(1, 2).matmul(d_o).contiguous(), r.repeats);
  });
  return {d_q, d_k, d_v};
}

TORCH_LIBRARY_IMPL(aten, HPU, m) {
  m.impl("_flash_attention_forward", &forward);
  m.impl("_flash_attention_backward", &backward);
}

}  // namespace
}  // namespace conclave::far
