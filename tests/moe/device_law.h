// SPDX-License-Identifier: Apache-2.0
// A small layer of every router on some device, against the same layer on the host.
#pragma once
#include <optional>

#include "moe/small_layer.h"

namespace small {

struct DeviceGate {
  std::string name = "";
  RouterEntry entry = {};
  config::AnyOptions options = {};
};

// Every registered router with its defaults, and topk with every stage on.
inline std::vector<DeviceGate> device_gates() {
  std::vector<DeviceGate> all;
  const auto registry = builtin();
  for (const auto& entry : registry.routers.entries()) all.push_back({entry.name, entry, entry.defaults()});
  for (const auto& [name, options] : topk_variants())
    all.push_back({"topk " + name, topk_entry(), config::AnyOptions(options)});
  return all;
}

struct DeviceSize {
  int64_t width = kModel, inner = kHidden;
  c10::ScalarType parameters = at::kDouble, rows = at::kDouble;
  double tolerance = 1e-11;
};

// What a layer makes of its rows, with every gradient, brought to the host. `Guard`: lives while it runs.
template <class Guard>
std::map<std::string, at::Tensor> results_on(c10::Device device, const DeviceGate& gate,
                                             const DeviceSize& size) {
  MoeLayer layer({.width = size.width,
                  .num_experts = kBank,
                  .expert_width = size.inner,
                  .shared = {.width = size.inner, .gate = true},
                  .layer = 3,
                  .dtype = size.parameters},
                 gate.entry.make(gate.options, {size.width, kBank, 3, size.parameters}));
  nn::initialise(layer, 0.7, 5);
  fill_zero_weights(layer);
  layer.to(device);
  auto context = three_documents();
  context.tokens.sequence_of_unit_U = context.tokens.sequence_of_unit_U.to(device);
  const auto x = normal({kUnits, size.width}, 41).to(size.rows).to(device).requires_grad_(true);
  std::map<std::string, at::Tensor> results;
  {
    const Guard guard;
    results["y"] = layer.run(x, context);
    results["y"].square().sum().backward();
  }
  const auto& trace = context.traces.at(0);
  if (const auto* plan = std::get_if<SparsePlan>(&trace.plan.body)) {
    results["expert_N"] = plan->expert_N.masked_fill(plan->row_of_pair_N.lt(0), -1);
    results["requested_E"] = plan->requested_E;
    results["kept_E"] = plan->kept_E;
  }
  results["x"] = x.grad();
  for (const auto& p : layer.named_parameters()) results[p.key()] = p.value().grad();
  for (auto& [name, value] : results) value = value.detach().cpu();
  return results;
}

struct NoGuard {
  NoGuard() {}
};

inline void expect_equal(const std::map<std::string, at::Tensor>& got,
                         const std::map<std::string, at::Tensor>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, value] : want) {
    SCOPED_TRACE(name);
    const auto& other = got.at(name);
    ASSERT_EQ(other.sizes(), value.sizes());
    if (!value.is_floating_point()) {
      EXPECT_TRUE(other.equal(value));
      continue;
    }
    const auto a = other.to(at::kDouble), b = value.to(at::kDouble);
    EXPECT_LE(a.sub(b).abs().max().item<double>(), tolerance * std::max(1.0, b.abs().max().item<double>()));
  }
}

}  // namespace small
