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

struct Bytes {
  double measured = 0, estimated = 0;
};

// Of one micro-batch in bf16, forward and backward.
Bytes bytes_of_a_pass(model::Recompute recompute, bool cuda_graph) {
  const auto dtype = at::kBFloat16;
  const int64_t length = 96;
  model::ModelOptions options{.hidden_size = 64,
                              .num_hidden_layers = 4,
                              .num_attention_heads = 4,
                              .num_key_value_heads = 2,
                              .moe = model::MoeOptions{.num_experts = 8, .moe_intermediate_size = 72}};
  options.moe->router.type = "topk";
  options.moe->router.options = moe::builtin().routers.at("topk").defaults();
  options.moe->cuda_graph = cuda_graph;
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
  return {.measured = static_cast<double>(peak->peak()),
          .estimated = static_cast<double>(model::activation_bytes(options, 257,
                                                                   {.size = 6,
                                                                    .seq_length = length,
                                                                    .active_experts = 2,
                                                                    .activations = dtype,
                                                                    .recompute = recompute,
                                                                    .device = kDevice.type()}))};
}

TEST(FarMemory, the_estimate_is_near_what_a_device_allocates) {
  install_host_kernels();
  for (const auto recompute : {model::Recompute::kNone, model::Recompute::kFull}) {
    const auto bytes = bytes_of_a_pass(recompute, false);
    EXPECT_GT(bytes.estimated, 0.75 * bytes.measured) << static_cast<int>(recompute);
    EXPECT_LT(bytes.estimated, 1.3 * bytes.measured) << static_cast<int>(recompute);
  }
}

// The device of the tests uses no memory of a recording twice; a GPU does.
TEST(FarMemory, recorded_layers_are_estimated_between_those_that_run_and_all_that_they_make) {
  install_host_kernels();
  const auto recorded = bytes_of_a_pass(model::Recompute::kNone, true);
  EXPECT_GT(recorded.estimated, 1.2 * bytes_of_a_pass(model::Recompute::kNone, false).measured);
  EXPECT_LT(recorded.estimated, recorded.measured);
}

}  // namespace
}  // namespace conclave::far
