// SPDX-License-Identifier: Apache-2.0
// Attention over ranges of tokens, and the model that uses it.
#include "conclave/ops/attention.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/nn/layers.h"
#include "far_device.h"
#include "far_kernels.h"

namespace conclave::far {
namespace {

struct Values {
  at::Tensor out, d_q, d_k, d_v;
};

// Two sequences of documents, the second with padding (-1), as attention_input() describes them to `device`.
Values attend(c10::Device device, bool causal, bool strict) {
  constexpr int64_t kHeads = 4, kKeyHeads = 2, kWidth = 8, kLength = 9;
  const auto document =
      at::tensor({0, 0, 0, 0, 1, 1, 2, 2, 2, 0, 1, 1, 1, 1, 1, 1, -1, -1}, at::kLong).view({2, 9});
  at::manual_seed(3);
  const auto make = [&](int64_t heads) {
    return at::randn({2, heads, kLength, kWidth}).to(at::kBFloat16).to(device).requires_grad_();
  };
  const auto q = make(kHeads), k = make(kKeyHeads), v = make(kKeyHeads);
  const auto probe = at::randn({2, kLength, kHeads, kWidth}).to(at::kBFloat16).to(device);
  const auto input = nn::attention_input(
      document, document.clamp_min(0), causal,
      {.head_dim = kWidth, .dtype = at::kFloat, .stored = at::kBFloat16, .device = device});
  EXPECT_EQ(input.pattern.range_starts_R1.defined(), !device.is_cpu());
  EXPECT_EQ(input.pattern.mask_BSS.defined(), device.is_cpu());
  Values values;
  {
    std::optional<NoWaits> no_waits;
    if (strict) no_waits.emplace();
    values.out = ops::attention(q, k, v, input.pattern);
    values.out.backward(probe);
  }
  return {values.out.detach().cpu(), q.grad().cpu(), k.grad().cpu(), v.grad().cpu()};
}

TEST(FarAttention, over_ranges_is_attention_under_a_mask) {
  install_emulated_kernels();
  for (const bool causal : {true, false}) {
    SCOPED_TRACE(causal);
    const auto got = attend(kDevice, causal, true), want = attend(c10::DeviceType::CPU, causal, false);
    const auto close = [](const at::Tensor& a, const at::Tensor& b) {
      EXPECT_LE(a.sub(b).abs().max().item<float>(), 2e-2 * std::max(1.0f, b.abs().max().item<float>()));
    };
    close(got.out, want.out);
    close(got.d_q, want.d_q);
    close(got.d_k, want.d_k);
    close(got.d_v, want.d_v);
  }
}

TEST(FarAttention, ranges_where_there_are_none_are_refused) {
  const auto x = at::randn({1, 2, 3, 8});
  EXPECT_THROW(ops::attention(x, x, x, {.range_starts_R1 = at::tensor({0, 3}, at::kInt), .longest_range = 3}),
               Error);
}

}  // namespace
}  // namespace conclave::far
