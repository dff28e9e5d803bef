// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/graphed.h"

#include <algorithm>

#include <ATen/ops/zeros_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/core/error.h"
#include "conclave/ops/device_graphs.h"
#include "conclave/ops/kernel_table.h"

namespace conclave::ops {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// What is compiled, loaded or allocated once has been after so many passes.
constexpr int kRehearsals = 2;
constexpr size_t kForward = 0, kBackward = 1;  // numbers of the recordings

// The places of the tensors that have a gradient.
std::vector<size_t> with_gradient(const variable_list& tensors) {
  std::vector<size_t> places;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].defined() && tensors[i].requires_grad()) places.push_back(i);
  }
  return places;
}

std::string described(const at::Tensor& t) {
  return fmt::format("{} [{}] on {}", c10::toString(t.scalar_type()), fmt::join(t.sizes(), ", "),
                     t.device().str());
}

variable_list at_places(const variable_list& tensors, const std::vector<size_t>& places) {
  variable_list chosen;
  for (const size_t i : places) chosen.push_back(tensors[i]);
  return chosen;
}

}  // namespace

// The tensors that the recordings read and write.
struct Graphed::Recording {
  std::unique_ptr<DeviceGraphs> graphs = {};
  variable_list sources = {};  // inputs, then parameters
  size_t num_inputs = 0;
  variable_list outputs = {};
  std::vector<size_t> sources_with, outputs_with;  // a gradient
  variable_list d_outputs = {}, d_sources = {};    // of those
  int64_t calls = 0, last_backward = 0;            // the last call, and the one whose backward pass ran last
  c10::Device device() const { return sources[0].device(); }
};

namespace {

struct RecordingHolder : public torch::CustomClassHolder {
  explicit RecordingHolder(std::shared_ptr<Graphed::Recording> r) : recording(std::move(r)) {}
  std::shared_ptr<Graphed::Recording> recording;
};

struct Replay : public torch::autograd::Function<Replay> {
  // `sources` tells autograd what the outputs depend on.
  static variable_list forward(AutogradContext* ctx, at::TensorList sources,
                               const std::shared_ptr<Graphed::Recording>& r) {
    const c10::DeviceGuard on_its_device(r->device());
    for (size_t i = 0; i < r->num_inputs; ++i) r->sources[i].copy_(sources[i]);
    r->graphs->replay(kForward);
    variable_list outputs, without;
    for (const auto& output : r->outputs) outputs.push_back(output.detach());
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!std::binary_search(r->outputs_with.begin(), r->outputs_with.end(), i))
        without.push_back(outputs[i]);
    }
    ctx->mark_non_differentiable(without);
    ctx->set_materialize_grads(false);
    ctx->saved_data["recording"] = c10::IValue::make_capsule(c10::make_intrusive<RecordingHolder>(r));
    ctx->saved_data["call"] = ++r->calls;
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto r =
        c10::static_intrusive_pointer_cast<RecordingHolder>(ctx->saved_data["recording"].toCapsule())
            ->recording;
    CONCLAVE_CHECK(ctx->saved_data["call"].toInt() == r->calls,
                   "Graphed: the function was called again before this backward pass, which overwrote what "
                   "it needs; run the backward pass of each call before the next call");
    CONCLAVE_CHECK(r->last_backward < r->calls,
                   "Graphed: a call has one backward pass, which overwrites what it needs");
    r->last_backward = r->calls;
    const c10::DeviceGuard on_its_device(r->device());
    for (size_t i = 0; i < r->outputs_with.size(); ++i) {
      const auto& grad = grads[r->outputs_with[i]];
      if (grad.defined()) r->d_outputs[i].copy_(grad);
      if (!grad.defined()) r->d_outputs[i].zero_();
    }
    r->graphs->replay(kBackward);
    variable_list d_sources(r->sources.size() + 1);  // and of the recording
    for (size_t i = 0; i < r->sources_with.size(); ++i) {
      const size_t source = r->sources_with[i];
      const auto& d = r->d_sources[i];
      // Who gets the gradient of an input may keep it as it is, also through a view. Those of parameters are
      // added to what the parameters have, or copied, since they are held here.
      d_sources[source] = source < r->num_inputs && d.defined() ? d.clone() : d;
    }
    return d_sources;
  }
};

}  // namespace

Graphed::Graphed(const Function& function, const std::vector<at::Tensor>& inputs,
                 const std::vector<at::Tensor>& parameters)
    : recording_(std::make_shared<Recording>()) {
  CONCLAVE_CHECK(!inputs.empty(), "Graphed: a function needs inputs");
  for (const auto& input : inputs) {
    CONCLAVE_CHECK(input.device() == inputs[0].device(),
                   fmt::format("Graphed: one input is on {} and another on {}", inputs[0].device().str(),
                               input.device().str()));
  }
  // Such a graph's gradients are added up in another stream than the one that records, which cannot wait.
  for (const auto& p : parameters) {
    CONCLAVE_CHECK(
        !torch::autograd::impl::try_get_grad_accumulator(p),
        "Graphed: something that was computed with a parameter is still there, with its graph; let "
        "go of losses and outputs before a function is recorded");
  }
  const c10::DeviceGuard on_its_device(inputs[0].device());
  auto& r = *recording_;
  r.graphs = kernels_of(inputs[0], "Graphed").graphs();
  r.num_inputs = inputs.size();
  for (const auto& input : inputs)
    r.sources.push_back(input.detach().clone().set_requires_grad(input.requires_grad()));
  const auto own_inputs = r.sources;
  r.sources.insert(r.sources.end(), parameters.begin(), parameters.end());
  r.sources_with = with_gradient(r.sources);

  const c10::AutoGradMode with_gradients(true);
  const auto forward = [&] { r.outputs = function(own_inputs); };
  const auto backward = [&] {
    r.d_sources = torch::autograd::grad(
        at_places(r.outputs, r.outputs_with), at_places(r.sources, r.sources_with), r.d_outputs,
        /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
  };
  for (int i = 0; i < kRehearsals; ++i) {
    r.graphs->rehearse([&] {
      forward();
      r.outputs_with = with_gradient(r.outputs);
      r.d_outputs.clear();
      for (const auto& output : at_places(r.outputs, r.outputs_with))
        r.d_outputs.push_back(at::zeros_like(output));
      if (!r.outputs_with.empty()) backward();
    });
  }
  r.outputs.clear();
  r.d_sources.clear();
  r.graphs->record(forward);
  if (!r.outputs_with.empty()) r.graphs->record(backward);
  for (auto& output : r.outputs) output = output.detach();
}

std::vector<at::Tensor> Graphed::operator()(const std::vector<at::Tensor>& inputs) const {
  const auto& r = *recording_;
  CONCLAVE_CHECK(
      inputs.size() == r.num_inputs,
      fmt::format("Graphed: recorded with {} inputs, called with {}", r.num_inputs, inputs.size()));
  variable_list sources = inputs;
  for (size_t i = 0; i < r.sources.size(); ++i) {
    if (i >= r.num_inputs) {
      sources.push_back(r.sources[i]);
      continue;
    }
    const auto &got = inputs[i], &recorded = r.sources[i];
    CONCLAVE_CHECK(got.sizes() == recorded.sizes() && got.scalar_type() == recorded.scalar_type() &&
                       got.device() == recorded.device(),
                   fmt::format("Graphed: input {} was recorded as {}, and is {}", i, described(recorded),
                               described(got)));
  }
  return Replay::apply(at::TensorList(sources), recording_);
}

}  // namespace conclave::ops
