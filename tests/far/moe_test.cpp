// SPDX-License-Identifier: Apache-2.0
// MoE layers on a device: what they compute, and that the host never waits on the way.
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "far_device.h"
#include "far_kernels.h"
#include "moe/small_layer.h"

namespace conclave::far {
namespace {

using namespace small;

struct Gate {
  std::string name = "";
  RouterEntry entry = {};
  config::AnyOptions options = {};
};

std::vector<Gate> gates() {
  std::vector<Gate> all;
  const auto registry = builtin();
  for (const auto& entry : registry.routers.entries()) all.push_back({entry.name, entry, entry.defaults()});
  for (const auto& [name, options] : topk_variants())
    all.push_back({"topk " + name, topk_entry(), config::AnyOptions(options)});
  return all;
}

struct Size {
  int64_t width = kModel, inner = kHidden;
  c10::ScalarType dtype = at::kDouble;
  double tolerance = 1e-11;
};

// What a layer makes of `x`, with every gradient, brought to the host.
std::map<std::string, at::Tensor> results_on(c10::Device device, const Gate& gate, const Size& size,
                                             bool may_wait) {
  MoeLayer layer({.width = size.width,
                  .num_experts = kBank,
                  .expert_width = size.inner,
                  .shared = {.width = size.inner, .gate = true},
                  .layer = 3,
                  .dtype = size.dtype},
                 gate.entry.make(gate.options, {size.width, kBank, 3, size.dtype}));
  nn::initialise(layer, 0.7, 5);
  fill_zero_weights(layer);
  layer.to(device);
  auto context = three_documents();
  context.tokens.sequence_of_unit_U = context.tokens.sequence_of_unit_U.to(device);
  const auto x = normal({kUnits, size.width}, 41).to(size.dtype).to(device).requires_grad_(true);
  std::map<std::string, at::Tensor> results;
  {
    std::optional<NoWaits> strict;
    if (!may_wait) strict.emplace();
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

void expect_equal(const std::map<std::string, at::Tensor>& got, const std::map<std::string, at::Tensor>& want,
                  double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, value] : want) {
    SCOPED_TRACE(name);
    const auto& other = got.at(name);
    ASSERT_EQ(other.sizes(), value.sizes());
    if (!value.is_floating_point()) {
      EXPECT_TRUE(other.equal(value));
      continue;
    }
    const double largest = value.abs().max().item<double>();
    EXPECT_LE(other.sub(value).abs().max().item<double>(), tolerance * std::max(1.0, largest));
  }
}

TEST(FarMoe, every_router_computes_on_a_device_what_it_computes_on_the_host) {
  install_emulated_kernels();
  for (const auto& gate : gates()) {
    SCOPED_TRACE(gate.name);
    const Size size;
    expect_equal(results_on(kDevice, gate, size, /*may_wait=*/true),
                 results_on(c10::DeviceType::CPU, gate, size, true), size.tolerance);
  }
}

// Widths and type as the grouped product asks for: 16 bytes, and no fp64.
TEST(FarMoe, the_host_never_waits_in_a_layer) {
  install_host_kernels();
  for (const auto& gate : gates()) {
    SCOPED_TRACE(gate.name);
    if (gate.name == "dselect_k") continue;  // how many experts a token mixes is known to the device alone
    const Size size{.width = 8, .inner = 12, .dtype = at::kFloat, .tolerance = 1e-5};
    expect_equal(results_on(kDevice, gate, size, /*may_wait=*/false),
                 results_on(c10::DeviceType::CPU, gate, size, true), size.tolerance);
  }
}

// Experts that cannot be multiplied together cost one wait in either direction.
TEST(FarMoe, waits_are_counted_where_products_cannot_be_grouped) {
  install_host_kernels();
  const Gate gate = gates().back();
  const Size odd{.width = 5, .inner = 7, .dtype = at::kFloat};
  const auto before = counts();
  const auto results = results_on(kDevice, gate, odd, /*may_wait=*/true);
  EXPECT_EQ((counts() - before).waits, 2 + static_cast<int64_t>(results.size()));  // and those of the test
}

}  // namespace
}  // namespace conclave::far
