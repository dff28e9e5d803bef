// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/attention.h"

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "conclave/core/error.h"
#include "conclave/ops/kernel_table.h"
#include "conclave/ops/product.h"

namespace conclave::ops {

namespace {

// The varlen form of ATen's flash attention: tokens of all ranges in one row.
at::Tensor by_ranges(const at::Tensor& q_BHSP, const at::Tensor& k_BGSP, const at::Tensor& v_BGSP,
                     const AttentionPattern& pattern) {
  const auto flat = [](const at::Tensor& x) { return x.transpose(1, 2).flatten(0, 1).contiguous(); };
  const auto out = at::_flash_attention_forward(
      flat(q_BHSP), flat(k_BGSP), flat(v_BGSP), pattern.range_starts_R1, pattern.range_starts_R1,
      pattern.longest_range, pattern.longest_range, /*dropout_p=*/0.0, pattern.causal,
      /*return_debug_mask=*/false);
  return std::get<0>(out).view({q_BHSP.size(0), q_BHSP.size(2), q_BHSP.size(1), q_BHSP.size(3)});
}

}  // namespace

bool takes_ranges(c10::DeviceType device, c10::ScalarType stored, int64_t head_width) {
  const auto& table = kernels_of(device, "attention");
  return table.attention_takes_ranges(stored, head_width);
}

at::Tensor attention(const at::Tensor& q_BHSP, const at::Tensor& k_BGSP, const at::Tensor& v_BGSP,
                     const AttentionPattern& pattern) {
  if (pattern.range_starts_R1.defined()) {
    CONCLAVE_CHECK(takes_ranges(q_BHSP.device().type(), q_BHSP.scalar_type(), q_BHSP.size(3)),
                   "attention: ranges of tokens are not taken here; give a mask");
    return by_ranges(q_BHSP, k_BGSP, v_BGSP, pattern);
  }
  // The softmax of the fused operator is fp32 in either type.
  const auto dtype = product_dtype(q_BHSP);
  const int64_t repeats = q_BHSP.size(1) / k_BGSP.size(1);
  const bool masked = pattern.mask_BSS.defined();
  // Off the CPU the fused operator takes a mask or shared key heads, not both.
  const bool spread = repeats > 1 && masked && !q_BHSP.is_cpu();
  const auto keys = [&](const at::Tensor& x) {
    return spread ? x.to(dtype).repeat_interleave(repeats, 1) : x.to(dtype);
  };
  return at::scaled_dot_product_attention(q_BHSP.to(dtype), keys(k_BGSP), keys(v_BGSP),
                                          masked ? std::optional<at::Tensor>(pattern.mask_BSS) : std::nullopt,
                                          /*dropout_p=*/0.0, /*is_causal=*/!masked && pattern.causal,
                                          /*scale=*/std::nullopt, /*enable_gqa=*/repeats > 1 && !spread)
      .to(q_BHSP.scalar_type())
      .transpose(1, 2);
}

}  // namespace conclave::ops
