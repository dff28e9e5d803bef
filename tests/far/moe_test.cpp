// SPDX-License-Identifier: Apache-2.0
// MoE layers on a device: what they compute, and that the host never waits on the way.
#include <gtest/gtest.h>

#include "far_device.h"
#include "far_kernels.h"
#include "moe/device_law.h"

namespace conclave::far {
namespace {

using namespace small;

const c10::Device kHost{c10::DeviceType::CPU};

TEST(FarMoe, every_router_computes_on_a_device_what_it_computes_on_the_host) {
  install_emulated_kernels();
  for (const auto& gate : device_gates()) {
    SCOPED_TRACE(gate.name);
    const DeviceSize size;
    expect_equal(results_on<NoGuard>(kDevice, gate, size), results_on<NoGuard>(kHost, gate, size),
                 size.tolerance);
  }
}

// Widths and type as the grouped product asks for: 16 bytes, and no fp64.
TEST(FarMoe, the_host_never_waits_in_a_layer) {
  install_host_kernels();
  for (const auto& gate : device_gates()) {
    SCOPED_TRACE(gate.name);
    if (gate.name == "dselect_k") continue;  // how many experts a token mixes is known to the device alone
    const DeviceSize size{
        .width = 8, .inner = 12, .parameters = at::kFloat, .rows = at::kFloat, .tolerance = 1e-5};
    expect_equal(results_on<NoWaits>(kDevice, gate, size), results_on<NoGuard>(kHost, gate, size),
                 size.tolerance);
  }
}

// Experts that cannot be multiplied together cost one wait in either direction.
TEST(FarMoe, waits_are_counted_where_products_cannot_be_grouped) {
  install_host_kernels();
  const DeviceSize odd{.width = 5, .inner = 7, .parameters = at::kFloat, .rows = at::kFloat};
  const auto before = counts();
  const auto results = results_on<NoGuard>(kDevice, device_gates().back(), odd);
  EXPECT_EQ((counts() - before).waits, 2 + static_cast<int64_t>(results.size()));  // and those of the test
}

}  // namespace
}  // namespace conclave::far
