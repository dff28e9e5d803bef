// SPDX-License-Identifier: Apache-2.0
#include "rows.h"

#include <ATen/ops/empty.h>

#include "conclave/ops/kernel_table.h"

namespace conclave::ops {

at::Tensor gather(const at::Tensor& source_SD, const at::Tensor& index_N, int64_t padded,
                  c10::ScalarType dtype) {
  const int64_t count = index_N.size(0);
  auto out = at::empty({padded, source_SD.size(1)}, source_SD.options().dtype(dtype));
  kernels_of(source_SD, "moving rows").gather_rows(source_SD, index_N, out.narrow(0, 0, count));
  if (padded > count) out.narrow(0, count, padded - count).zero_();
  return out;
}

at::Tensor sum_rows(const at::Tensor& rows_AD, const at::Tensor& offsets, const at::Tensor& row_of,
                    int64_t count, c10::ScalarType dtype) {
  auto out = at::empty({count, rows_AD.size(1)}, rows_AD.options().dtype(dtype));
  kernels_of(rows_AD, "moving rows").sum_rows(rows_AD, offsets, row_of, out);
  return out;
}

at::Tensor permute(const at::Tensor& source_SD, const at::Tensor& offsets_S1, const at::Tensor& rows_N,
                   int64_t num_rows, bool zero) {
  auto out = at::empty({num_rows, source_SD.size(1)}, source_SD.options());
  if (zero) out.zero_();
  kernels_of(source_SD, "moving rows").permute_rows(source_SD, offsets_S1, rows_N, out);
  return out;
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
