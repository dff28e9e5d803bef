// SPDX-License-Identifier: Apache-2.0
#include "far_kernels.h"

#include <ATen/ops/full_like.h>

#include "conclave/cuda/kernels.h"
#include "conclave/ops/grouped_experts.h"
#include "far_device.h"
#include "far_graphs.h"

namespace conclave::far {

void install_emulated_kernels() {
  install(cuda::make_kernels([] { return static_cast<CUstream_st*>(nullptr); },
                             {.grouped_bf16 = true, .flash_attention = true, .graphs = make_graphs}));
}

void install_host_kernels() {
  auto table = ops::kernels_of(c10::DeviceType::CPU, "far");
  // As a device does, which does not know how many were kept.
  table.sort_pairs = [host = table.sort_pairs](const at::Tensor& expert_N, const at::Tensor& kept_N,
                                               int64_t num_experts) {
    auto sorted = host(expert_N, kept_N, num_experts);
    const auto pairs = sorted.pair_of_row_A;
    sorted.pair_of_row_A = at::full_like(expert_N, -1);
    sorted.pair_of_row_A.narrow(0, 0, pairs.numel()).copy_(pairs);
    return sorted;
  };
  const auto always = [](c10::ScalarType) { return true; };
  table.experts = ops::grouped_experts(always);
  table.experts_backward = ops::grouped_experts_backward(always);
  table.attention_takes_ranges = [](c10::ScalarType stored, int64_t) { return stored == at::kBFloat16; };
  table.graphs = make_graphs;
  install(std::move(table));
}

}  // namespace conclave::far
