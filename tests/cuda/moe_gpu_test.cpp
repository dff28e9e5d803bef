// SPDX-License-Identifier: Apache-2.0
// MoE layers on a GPU against the host: the laws of tests/far, with the real kernels.
#include "cuda/gpu.h"
#include "moe/recorded_law.h"

namespace conclave::cuda {
namespace {

using namespace small;

const c10::Device kHost{c10::DeviceType::CPU}, kGpu{c10::DeviceType::CUDA, 0};

class MoeOnGpu : public OnGpu {
 protected:
  static void expect_as_on_host(const DeviceSize& size) {
    for (const auto& gate : device_gates()) {
      SCOPED_TRACE(gate.name);
      expect_equal(results_on<NoGuard>(kGpu, gate, size), results_on<NoGuard>(kHost, gate, size),
                   size.tolerance);
    }
  }
};

TEST_F(MoeOnGpu, every_router_in_fp64) {
  expect_as_on_host({.tolerance = 1e-10});
}

TEST_F(MoeOnGpu, every_router_in_fp32) {
  expect_as_on_host({.parameters = at::kFloat, .rows = at::kFloat, .tolerance = 1e-4});
}

// Experts in one product where the GPU has it.
TEST_F(MoeOnGpu, every_router_in_bf16) {
  expect_as_on_host(
      {.width = 16, .inner = 24, .parameters = at::kFloat, .rows = at::kBFloat16, .tolerance = 5e-2});
}

// CUDA graphs of layers, forward and backward.
TEST_F(MoeOnGpu, recorded_layers_are_those_that_run) {
  expect_recorded_layers_as_they_run(
      kGpu, {.width = 16, .inner = 24, .parameters = at::kFloat, .rows = at::kBFloat16, .tolerance = 1e-2});
}

}  // namespace
}  // namespace conclave::cuda
