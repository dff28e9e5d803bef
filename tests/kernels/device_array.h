// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>

#include "device/status.h"
#include "values.h"

namespace conclave::kernels {

inline void expect_ok(cudaError_t status) {
  ASSERT_EQ(static_cast<int>(status), 0) << "a call of the CUDA runtime failed";
}
inline void expect_ok(cuda::Status status) {
  ASSERT_EQ(static_cast<int>(status), 0) << "the kernel was not launched";
  ASSERT_EQ(static_cast<int>(cudaDeviceSynchronize()), 0) << "the kernel failed";
}

// Values on the device, which start `shift` values behind a multiple of 16 bytes, between two zones that
// nobody may write to.
template <class T>
class DeviceArray {
 public:
  // Poisoned: every byte is `poison`, so that what a kernel leaves out is seen (0xff is NaN in every type).
  explicit DeviceArray(size_t count, unsigned char poison = 0xff, size_t shift = 0)
      : bytes_(count * sizeof(T)), begin_(kZone + shift * sizeof(T)) {
    std::vector<unsigned char> all(begin_ + bytes_ + kZone, kGuard);
    std::memset(all.data() + begin_, poison, bytes_);
    expect_ok(cudaMalloc(reinterpret_cast<void**>(&memory_), all.size()));
    expect_ok(cudaMemcpy(memory_, all.data(), all.size(), cudaMemcpyHostToDevice));
  }
  explicit DeviceArray(const std::vector<T>& values, size_t shift = 0)
      : DeviceArray(values.size(), 0, shift) {
    expect_ok(cudaMemcpy(memory_ + begin_, values.data(), bytes_, cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() {
    std::vector<unsigned char> all(begin_ + bytes_ + kZone);
    expect_ok(cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost));
    std::vector<int64_t> spoilt;
    for (size_t i = 0; i < all.size(); ++i) {
      const bool outside = i < begin_ || i >= begin_ + bytes_;
      if (outside && all[i] != kGuard)
        spoilt.push_back(static_cast<int64_t>(i) - static_cast<int64_t>(begin_));
    }
    EXPECT_TRUE(spoilt.empty()) << spoilt.size() << " bytes are written outside, from byte " << spoilt[0];
    expect_ok(cudaFree(memory_));
  }

  T* data() const { return reinterpret_cast<T*>(memory_ + begin_); }
  std::vector<T> host() const {
    std::vector<T> values(bytes_ / sizeof(T));
    expect_ok(cudaMemcpy(values.data(), data(), bytes_, cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  static constexpr size_t kZone = 64;
  static constexpr unsigned char kGuard = 0xa5;
  size_t bytes_, begin_;
  unsigned char* memory_ = nullptr;
};

// On a machine without a GPU the tests of the compiled kernels are skipped; the emulator always runs.
class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) return;
    if (std::getenv("CONCLAVE_REQUIRE_GPU")) FAIL() << "no GPU, and there has to be one";  // tools/gpu_check
    GTEST_SKIP() << "no GPU";
  }
};

// Pairs of units: their offsets, rows that are a permutation with some pairs left out, and weights.
struct Pairs {
  std::vector<int32_t> offsets{0}, unit, row_of;
  int64_t rows = 0;
  int64_t units() const { return static_cast<int64_t>(offsets.size()) - 1; }
};
inline Pairs random_pairs(int64_t units, int most, unsigned seed) {
  std::mt19937 engine(seed);
  Pairs pairs;
  for (int64_t u = 0; u < units; ++u) {
    const int count = static_cast<int>(engine() % static_cast<unsigned>(most + 1));
    for (int k = 0; k < count; ++k) pairs.unit.push_back(static_cast<int32_t>(u));
    pairs.offsets.push_back(static_cast<int32_t>(pairs.unit.size()));
  }
  std::vector<int32_t> order;
  for (size_t j = 0; j < pairs.unit.size(); ++j) {
    pairs.row_of.push_back(engine() % 7 == 0 ? -1 : static_cast<int32_t>(pairs.rows++));
    if (pairs.row_of.back() >= 0) order.push_back(pairs.row_of.back());
  }
  std::shuffle(order.begin(), order.end(), engine);
  for (auto& row : pairs.row_of) row = row < 0 ? row : order[static_cast<size_t>(row)];
  return pairs;
}

}  // namespace conclave::kernels
