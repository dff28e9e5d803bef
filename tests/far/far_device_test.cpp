// SPDX-License-Identifier: Apache-2.0
// The device that the other tests rely on does see what it is there for.
#include "far_device.h"

#include <csignal>

#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "far_kernels.h"

namespace conclave::far {
namespace {

TEST(FarDevice, computes_what_the_host_computes_and_counts_what_waits) {
  install_host_kernels();
  const auto a = at::randn({5, 7}), b = at::randn({7, 3});
  const auto before = counts();
  const auto far_a = a.to(kDevice), far_b = b.to(kDevice);
  EXPECT_EQ((counts() - before).uploads, 2);
  auto c = far_a.mm(far_b).t().contiguous().add_(1.0);
  c.select(0, 1).mul_(2);
  EXPECT_EQ((counts() - before).waits, 0);
  auto want = a.mm(b).t().contiguous().add_(1.0);
  want.select(0, 1).mul_(2);
  EXPECT_TRUE(c.cpu().equal(want));
  EXPECT_EQ((counts() - before).waits, 1);
  EXPECT_GT(far_a.abs().sum().item<double>(), 0);
  EXPECT_EQ((counts() - before).waits, 2);
  EXPECT_EQ(far_a.gt(0).nonzero().size(1), 2);
  EXPECT_EQ((counts() - before).waits, 3);
  const NoWaits no_waits;
  EXPECT_THROW(far_a.sum().item<double>(), Error);
  EXPECT_ANY_THROW(far_a.add(a)) << "one on the host";
}

TEST(FarDeviceDeathTest, its_memory_is_closed_to_the_host) {
  install_host_kernels();
  const auto x = at::ones({4}).to(kDevice);
  EXPECT_EXIT(
      {
        volatile float v = x.const_data_ptr<float>()[0];
        (void)v;
      },
      testing::KilledBySignal(SIGSEGV), "");
}

}  // namespace
}  // namespace conclave::far
