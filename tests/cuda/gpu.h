// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <gtest/gtest.h>

#include "conclave/cuda/install.h"
#include "conclave/ops/kernel_table.h"

namespace conclave::cuda {

// Tests that need a GPU; elsewhere they are skipped, and say why.
class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    offer();
    if (const auto absence = ops::absence_of(c10::DeviceType::CUDA); !absence.empty())
      GTEST_SKIP() << absence;
  }
};

}  // namespace conclave::cuda
