// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdlib>

#include <gtest/gtest.h>

#include "conclave/cuda/install.h"

// At the start of a test that needs a GPU. Where there is none it is skipped and says why, unless there has
// to be one (CONCLAVE_REQUIRE_GPU, set by tools/gpu_check): then it fails, for a skip would look like
// success.
#define CONCLAVE_NEEDS_GPU()                                             \
  if (const auto absence = ::conclave::cuda::load(); !absence.empty()) { \
    if (std::getenv("CONCLAVE_REQUIRE_GPU")) FAIL() << absence;          \
    GTEST_SKIP() << absence;                                             \
  }

namespace conclave::cuda {

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override { CONCLAVE_NEEDS_GPU(); }
};

}  // namespace conclave::cuda
