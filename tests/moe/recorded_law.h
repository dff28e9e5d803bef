// SPDX-License-Identifier: Apache-2.0
// Layers that are recorded once and replayed (MoeLayerOptions::cuda_graph) against layers that run.
#pragma once
#include "moe/device_law.h"

namespace small {

inline std::shared_ptr<MoeLayer> layer_on(c10::Device device, const DeviceGate& gate, const DeviceSize& size,
                                          bool cuda_graph) {
  auto layer =
      std::make_shared<MoeLayer>(MoeLayerOptions{.width = size.width,
                                                 .num_experts = kBank,
                                                 .expert_width = size.inner,
                                                 .shared = {.width = size.inner, .gate = true},
                                                 .layer = 3,
                                                 .cuda_graph = cuda_graph,
                                                 .dtype = size.parameters},
                                 gate.entry.make(gate.options, {size.width, kBank, 3, size.parameters}));
  nn::initialise(*layer, 0.7, 5);
  fill_zero_weights(*layer);
  layer->to(device);
  return layer;
}

// One micro-batch of a step. Whatever a loss may read of the layer takes part in the objective; gradients add
// up over the steps.
inline std::map<std::string, at::Tensor> results_of_step(MoeLayer& layer, c10::Device device,
                                                         const DeviceSize& size, int64_t step) {
  auto context = three_documents();
  context.step = step;
  context.random.step = static_cast<uint64_t>(step);
  context.tokens.sequence_of_unit_U = context.tokens.sequence_of_unit_U.to(device);
  const auto x = normal({kUnits, size.width}, 50 + static_cast<uint64_t>(step))
                     .to(size.rows)
                     .to(device)
                     .requires_grad_(true);
  std::map<std::string, at::Tensor> results;
  results["y"] = layer.run(x, context);
  const auto& trace = context.traces.at(0);
  const auto& plan = std::get<SparsePlan>(trace.plan.body);
  results["y"]
      .to(size.parameters)
      .square()
      .sum()
      .add(trace.logits_UE.square().sum())
      .add(trace.probs_UE.square().sum(), 3.0)
      .add(plan.weight_N.square().sum())
      .backward();
  results["x"] = x.grad();
  for (const auto& p : layer.named_parameters()) results[p.key()] = p.value().grad();
  results["expert_N"] = plan.expert_N;
  results["requested_E"] = plan.requested_E;
  results["kept_E"] = plan.kept_E;
  if (trace.non_finite.defined()) results["non_finite"] = trace.non_finite;
  for (auto& [name, value] : results) value = value.detach().cpu().clone();
  return results;
}

// Every router whose passes launch the same in every step; the others are refused.
inline void expect_recorded_layers_as_they_run(c10::Device device, const DeviceSize& size) {
  int num_recorded = 0;
  for (const auto& gate : device_gates()) {
    SCOPED_TRACE(gate.name);
    const auto recorded = layer_on(device, gate, size, true), plain = layer_on(device, gate, size, false);
    if (!gate.entry.caps(gate.options).same_launches) {
      EXPECT_ANY_THROW(results_of_step(*recorded, device, size, 0)) << "what it does can be recorded";
      continue;
    }
    ++num_recorded;
    for (int64_t step = 0; step < 4; ++step) {
      if (step == 3) {  // the parameters move
        for (auto& p : recorded->parameters()) p.set_data(p.mul(0.5));
        for (auto& p : plain->parameters()) p.set_data(p.mul(0.5));
      }
      expect_equal(results_of_step(*recorded, device, size, step),
                   results_of_step(*plain, device, size, step), size.tolerance);
    }
  }
  EXPECT_GE(num_recorded, 9);
}

}  // namespace small
