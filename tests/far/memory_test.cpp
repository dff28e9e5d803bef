// SPDX-License-Identifier: Apache-2.0
// The memory estimate against what a device allocates.
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "conclave/model/accounting.h"
#include "conclave/model/language_model.h"
#include "far_device.h"
#include "far_kernels.h"
#include "model/step_memory.h"

namespace conclave::far {
namespace {

TEST(FarMemory, the_estimate_is_near_what_a_device_allocates) {
  install_host_kernels();
  const auto dtype = at::kBFloat16;
  const int64_t length = 96;
  for (const auto recompute : {model::Recompute::kNone, model::Recompute::kFull}) {
    model::ModelOptions options{.hidden_size = 64,
                                .num_hidden_layers = 4,
                                .num_attention_heads = 4,
                                .num_key_value_heads = 2,
                                .moe = model::MoeOptions{.num_experts = 8, .moe_intermediate_size = 72}};
    options.moe->router.type = "topk";
    options.moe->router.options = moe::builtin().routers.at("topk").defaults();
    model::LanguageModel m(options, 257, moe::builtin(), 1, at::kFloat, dtype);
    m.set_recompute(recompute);
    m.to(kDevice);
    for (const auto& p : nn::tagged_parameters(m)) p.tensor.mutable_grad() = at::zeros_like(p.tensor);
    auto batch = full_rows(6, length);
    for (int64_t i = 0; i < batch.size(); ++i)
      batch.document[static_cast<size_t>(i)] = static_cast<int32_t>(i % length * 4 / length);
    const auto peak = std::make_shared<PeakMemory>(kDevice.type());
    moe::ForwardContext context;
    {
      const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, peak);
      m.loss(batch, context).sum.backward();
    }
    const auto measured = static_cast<double>(peak->peak());
    const auto estimate = static_cast<double>(model::activation_bytes(options, 257,
                                                                      {.size = 6,
                                                                       .seq_length = length,
                                                                       .active_experts = 2,
                                                                       .activations = dtype,
                                                                       .recompute = recompute,
                                                                       .device = kDevice.type()}));
    EXPECT_GT(estimate, 0.75 * measured) << static_cast<int>(recompute);
    EXPECT_LT(estimate, 1.3 * measured) << static_cast<int>(recompute);
  }
}

}  // namespace
}  // namespace conclave::far
