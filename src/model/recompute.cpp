// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/recompute.h"

#include <memory>

#include <c10/core/GradMode.h>

#include "conclave/moe/trace_tensors.h"
#include "conclave/ops/recompute.h"

namespace conclave::model {

namespace {

moe::ForwardContext without_traces(const moe::ForwardContext& context) {
  return {.phase = context.phase,
          .step = context.step,
          .random = context.random,
          .tokens = context.tokens,
          .traces = {},
          .replay = {}};
}

// The output, then what the traces offer.
std::vector<at::Tensor> outputs_of(const at::Tensor& y, std::vector<moe::RouterTrace>& traces) {
  std::vector<at::Tensor> outputs{y};
  for (auto& trace : traces) {
    for (const auto* tensor : moe::differentiable(trace)) outputs.push_back(*tensor);
  }
  return outputs;
}

}  // namespace

at::Tensor recomputed(const at::Tensor& x, moe::ForwardContext& context, BlockBody body) {
  if (!c10::GradMode::is_enabled() || !x.requires_grad()) return body(x, context);
  const auto first = std::make_shared<moe::ForwardContext>(without_traces(context));
  const auto decisions = std::make_shared<std::vector<moe::Decisions>>();
  const auto outputs = ops::recompute(
      x, [first_pass = first, decisions, body = std::move(body)](const at::Tensor& input, bool again) {
        if (!again) return outputs_of(body(input, *first_pass), first_pass->traces);
        auto context_again = without_traces(*first_pass);
        context_again.replay = *decisions;
        return outputs_of(body(input, context_again), context_again.traces);
      });
  // The first pass ran without gradient; its traces receive the differentiable outputs and move on to the
  // caller.
  size_t next = 1;
  for (auto& trace : first->traces) {
    for (auto* tensor : moe::differentiable(trace)) *tensor = outputs[next++];
    decisions->push_back(trace.decisions);
    context.traces.push_back(std::move(trace));
  }
  first->traces.clear();
  return outputs[0];
}

}  // namespace conclave::model
