// SPDX-License-Identifier: Apache-2.0
#include "recorded_pass.h"

#include "conclave/moe/trace_tensors.h"

namespace conclave::moe {

namespace {

std::vector<at::Tensor*> outputs_of(RouterTrace& trace) {
  auto outputs = differentiable(trace);
  for (auto* t : beside_differentiable(trace)) outputs.push_back(t);
  return outputs;
}

}  // namespace

RecordedPass::Recorded& RecordedPass::recorded(const Key& key, const at::Tensor& x_RD,
                                               const ForwardContext& context,
                                               const std::vector<at::Tensor>& state, const Pass& pass) {
  for (auto& one : all_) {
    if (one.key == key) return one;
  }
  std::erase_if(all_, [&](const Recorded& one) { return one.key.state != key.state; });
  Recorded made{.key = key};
  made.pass = std::make_unique<ops::Graphed>(
      [&](const std::vector<at::Tensor>& inputs) {
        auto inner = context;
        inner.traces.clear();
        inner.tokens.sequence_of_unit_U = inputs[1];
        std::vector<at::Tensor> outputs{pass(inputs[0], inner)};
        made.trace = std::move(inner.traces.at(0));
        made.trace.decisions = {};
        for (const auto* t : outputs_of(made.trace)) outputs.push_back(*t);
        return outputs;
      },
      std::vector<at::Tensor>{x_RD, context.tokens.sequence_of_unit_U}, state);
  for (auto* t : outputs_of(made.trace)) *t = t->detach();
  return all_.emplace_back(std::move(made));
}

at::Tensor RecordedPass::run(const at::Tensor& x_RD, ForwardContext& context,
                             const std::vector<at::Tensor>& state, const Pass& pass) {
  Key key{.num_rows = x_RD.size(0),
          .num_sequences = context.tokens.num_sequences,
          .dtype = x_RD.scalar_type(),
          .wants_x = x_RD.requires_grad()};
  for (const auto& t : state) key.state.emplace_back(t.const_data_ptr(), t.requires_grad());
  auto& one = recorded(key, x_RD, context, state, pass);
  const auto outputs = (*one.pass)({x_RD, context.tokens.sequence_of_unit_U});

  auto trace = one.trace;
  auto next = outputs.begin() + 1;
  for (auto* t : outputs_of(trace)) *t = *next++;
  trace.plan.units = context.tokens;
  // What is read once for several passes outlives the next one.
  if (trace.non_finite.defined()) trace.non_finite = trace.non_finite.clone();
  if (auto* plan = std::get_if<SparsePlan>(&trace.plan.body)) {
    plan->requested_E = plan->requested_E.clone();
    plan->kept_E = plan->kept_E.clone();
  }
  context.traces.push_back(std::move(trace));
  return outputs[0];
}

}  // namespace conclave::moe
