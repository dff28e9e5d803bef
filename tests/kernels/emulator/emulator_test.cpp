// SPDX-License-Identifier: Apache-2.0
// The emulator finds the faults that it is there for.
#include <gtest/gtest-spi.h>

#include <stdexcept>

#include "device/reduce.h"
#include "device_array.h"

namespace conclave::kernels {
namespace {

using namespace cuda;

std::vector<int> result_of(void (*kernel)(int*), int threads, emulator::Order order) {
  const DeviceArray<int> out(static_cast<size_t>(threads));
  emulator::set_order(order);
  expect_ok(launch({.blocks = 1, .threads = threads}, kernel, out.data()));
  emulator::set_order(emulator::order_of_environment());
  return out.host();
}

template <bool kBarrier>
__global__ void reverse_kernel(int* out) {
  __shared__ int values[64];
  values[threadIdx.x] = -1;
  __syncthreads();
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

TEST(Emulator, a_missing_barrier_shows_in_the_order_of_the_threads) {
  using emulator::Order;
  const auto right = result_of(reverse_kernel<true>, 64, Order::kForward);
  EXPECT_EQ(right, result_of(reverse_kernel<true>, 64, Order::kBackward));
  EXPECT_EQ(right, result_of(reverse_kernel<true>, 64, Order::kShuffled));
  EXPECT_NE(right, result_of(reverse_kernel<false>, 64, Order::kForward));
  EXPECT_NE(result_of(reverse_kernel<false>, 64, Order::kForward),
            result_of(reverse_kernel<false>, 64, Order::kBackward));
}

__global__ void early_end_kernel(int* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = warp_sum(1);
}
__global__ void divided_barrier_kernel(int*) {
  if (threadIdx.x % 2 == 0) __syncthreads();
}

TEST(Emulator, threads_that_wait_for_ever_are_an_error) {
  EXPECT_THROW(result_of(early_end_kernel, 32, emulator::Order::kForward), std::logic_error);
  EXPECT_THROW(result_of(divided_barrier_kernel, 32, emulator::Order::kForward), std::logic_error);
}

__global__ void one_too_far_kernel(int* out) {
  out[threadIdx.x + 1] = 1;
}

TEST(Emulator, a_write_behind_the_end_is_seen) {
  EXPECT_NONFATAL_FAILURE(result_of(one_too_far_kernel, 1, emulator::Order::kForward),
                          "written outside, from byte 4");
}

__global__ void sum_kernel(int* out) {
  const int all = block_sum<3>(static_cast<int>(threadIdx.x));
  const int again = block_sum<3>(1);
  out[threadIdx.x] = all * 1000 + again;
}

TEST(Emulator, sums_over_warps_and_blocks) {
  for (const auto order :
       {emulator::Order::kForward, emulator::Order::kBackward, emulator::Order::kShuffled}) {
    for (const int sum : result_of(sum_kernel, 96, order)) EXPECT_EQ(sum, 95 * 96 / 2 * 1000 + 96);
  }
}

}  // namespace
}  // namespace conclave::kernels
