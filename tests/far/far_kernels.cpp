// SPDX-License-Identifier: Apache-2.0
#include "far_kernels.h"

#include "conclave/cuda/kernels.h"
#include "conclave/ops/grouped_experts.h"
#include "far_device.h"

namespace conclave::far {

void install_emulated_kernels() {
  install(cuda::make_kernels([] { return static_cast<CUstream_st*>(nullptr); },
                             {.grouped_bf16 = true, .flash_attention = true}));
}

void install_host_kernels() {
  auto table = ops::kernels_of(c10::DeviceType::CPU, "far");
  const auto always = [](c10::ScalarType) { return true; };
  table.experts = ops::grouped_experts(always);
  table.experts_backward = ops::grouped_experts_backward(always);
  table.attention_takes_ranges = [](c10::ScalarType stored, int64_t) { return stored == at::kBFloat16; };
  install(std::move(table));
}

}  // namespace conclave::far
