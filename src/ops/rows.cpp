// SPDX-License-Identifier: Apache-2.0
#include "rows.h"

#include <numeric>

#include <ATen/ops/empty.h>

#include "permute.h"
#include "storage.h"

namespace conclave::ops {

namespace {

constexpr int64_t kRowGrain = 64;

// body(In{}, Out{}) for the pairs of storage types that rows are moved between.
template <class Body>
void dispatch_pair(const at::Tensor& in, c10::ScalarType out, Body body) {
  dispatch_storage(in, "moving rows", [&](auto stored) {
    using In = decltype(stored);
    if (in.scalar_type() == out) return body(In{}, In{});
    if constexpr (std::is_same_v<In, kernels::bfloat16>) {
      if (out == at::kFloat) return body(In{}, float{});
    } else if constexpr (std::is_same_v<In, float>) {
      if (out == at::kBFloat16) return body(In{}, kernels::bfloat16{});
    }
    throw Error(fmt::format("moving rows: no conversion from {} to {}", c10::toString(in.scalar_type()),
                            c10::toString(out)));
  });
}

}  // namespace

at::Tensor gather(const at::Tensor& source_SD, const int32_t* index, int64_t count, int64_t padded,
                  c10::ScalarType dtype) {
  const int64_t width = source_SD.size(1);
  auto out = at::empty({padded, width}, source_SD.options().dtype(dtype));
  dispatch_pair(source_SD, dtype, [&](auto in_type, auto out_type) {
    using In = decltype(in_type);
    using Out = decltype(out_type);
    at::parallel_for(0, count, kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::gather_rows<In, Out>(const_data<In>(source_SD), index, mutable_data<Out>(out), width, begin,
                                    end);
    });
  });
  if (padded > count) out.narrow(0, count, padded - count).zero_();
  return out;
}

at::Tensor sum_rows(const at::Tensor& rows_AD, const at::Tensor& offsets, const at::Tensor& row_of,
                    int64_t count, c10::ScalarType dtype) {
  auto out = at::empty({count, rows_AD.size(1)}, rows_AD.options().dtype(dtype));
  dispatch_pair(rows_AD, dtype, [&](auto in_type, auto out_type) {
    using In = decltype(in_type);
    using Out = decltype(out_type);
    at::parallel_for(0, count, kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::sum_rows<In, Out>(const_data<In>(rows_AD), const_data<int32_t>(offsets),
                                 const_data<int32_t>(row_of), nullptr, mutable_data<Out>(out),
                                 rows_AD.size(1), begin, end);
    });
  });
  return out;
}

void scale_rows(const at::Tensor& in, const at::Tensor& scale, const at::Tensor& out) {
  dispatch_pair(in, out.scalar_type(), [&](auto in_type, auto out_type) {
    using In = decltype(in_type);
    using Out = decltype(out_type);
    at::parallel_for(0, out.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::scale_rows<In, Out>(const_data<In>(in), const_data<kernels::wide_t<In>>(scale),
                                   mutable_data<Out>(out), out.size(1), begin, end);
    });
  });
}

std::vector<ExpertRows> busy_experts(const std::vector<int64_t>& offsets) {
  std::vector<ExpertRows> experts;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    if (offsets[e + 1] > offsets[e]) {
      experts.push_back({static_cast<int64_t>(e), offsets[e], offsets[e + 1] - offsets[e]});
    }
  }
  std::stable_sort(experts.begin(), experts.end(),
                   [](const ExpertRows& a, const ExpertRows& b) { return a.count > b.count; });
  return experts;
}

}  // namespace conclave::ops
