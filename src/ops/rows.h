// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <atomic>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>

// Moving rows on tensors, and running the experts of a bank.
namespace conclave::ops {

// out[i] = source[index[i]] for all N, in `dtype`; rows [N, padded) are zero.
at::Tensor gather(const at::Tensor& source_SD, const at::Tensor& index_N, int64_t padded,
                  c10::ScalarType dtype);

// A gather by the inverse map, reading every source row once: out[rows_N[j]] = source[s] for the pairs j of
// s. Rows that no pair names are zero if `zero`, else anything.
at::Tensor permute(const at::Tensor& source_SD, const at::Tensor& offsets_S1, const at::Tensor& rows_N,
                   int64_t num_rows, bool zero = false);

// out[u] = sum of the rows of u in their order, in `dtype`.
at::Tensor sum_rows(const at::Tensor& rows_AD, const at::Tensor& offsets, const at::Tensor& row_of,
                    int64_t count, c10::ScalarType dtype);

struct ExpertRows {
  int64_t expert = 0, first = 0, count = 0;
};

// The experts that have rows, most rows first.
std::vector<ExpertRows> busy_experts(const std::vector<int64_t>& offsets);

// body(expert) for every expert that has rows. Several experts run at once, one thread each, unless one of
// them has so many rows that splitting its products is better. The choice depends on the offsets and the
// number of threads only, never on timing, so two runs are bitwise equal. The bodies must write to different
// places.
template <class Body>
void for_each_expert(const std::vector<int64_t>& offsets, Body body) {
  const auto experts = busy_experts(offsets);
  const int64_t threads = at::get_num_threads();
  const bool balanced = !experts.empty() && experts.front().count * threads <= offsets.back() * 5 / 4;
  if (threads == 1 || !balanced || at::in_parallel_region()) {
    for (const auto& expert : experts) body(expert);
    return;
  }
  std::atomic<size_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView
        plain;  // the pool's threads know nothing of the caller's grad mode
    for (; begin < end; ++begin) {
      for (size_t i = next++; i < experts.size(); i = next++) body(experts[i]);
    }
  });
}

}  // namespace conclave::ops
