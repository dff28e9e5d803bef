// SPDX-License-Identifier: Apache-2.0
#include "../../src/cuda/torch_library.h"

#include <ATen/ops/ones.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <gtest/gtest.h>

namespace conclave::cuda {
namespace {

// In a process that runs already, as the program does it. Needs no GPU: only its use would.
TEST(TorchLibraryDeathTest, the_cuda_half_loads_late) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const bool before = c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA);
        const auto why = load_torch_cuda();
        if (!why.empty()) fprintf(stderr, "%s\n", why.c_str());
        const auto x = at::ones({3}).requires_grad_();
        x.square().sum().backward();
        const bool computes = x.grad().sum().item<float>() == 6;
        const bool after = c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA);
        _exit(!before && why.empty() && after && computes ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

// Functions of the allocator are called through its table, without linking with it: the last one of the
// header is where this LibTorch has it.
TEST(TorchLibraryDeathTest, the_allocator_is_the_one_of_the_header) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        if (const auto why = load_torch_cuda(); !why.empty()) _exit(2);
        auto* allocator = static_cast<c10::cuda::CUDACachingAllocator::CUDAAllocator*>(
            c10::GetAllocator(c10::DeviceType::CUDA));
        _exit(allocator->name() == "native" ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace conclave::cuda
