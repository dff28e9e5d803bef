// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "conclave/comm/devices.h"

namespace conclave::comm {

// A device whose memory is ordinary memory with every byte masked: who reads it as memory of the host gets
// something else.
class MaskedMemory : public DeviceMemory {
 public:
  int to_hosts = 0, to_devices = 0, withins = 0;
  static void mask(void* to, const void* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; ++i)
      static_cast<uint8_t*>(to)[i] = static_cast<const uint8_t*>(from)[i] ^ 0x5a;
  }
  void to_host(void* host, const void* device, int64_t bytes) override {
    ++to_hosts;
    EXPECT_GT(bytes, 0);
    mask(host, device, bytes);
  }
  void to_device(void* device, const void* host, int64_t bytes) override {
    ++to_devices;
    EXPECT_GT(bytes, 0);
    mask(device, host, bytes);
  }
  void within(void* to, const void* from, int64_t bytes) override {
    ++withins;
    EXPECT_GT(bytes, 0);
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
};

// int64 values on the device.
class OnDevice {
 public:
  explicit OnDevice(const std::vector<int64_t>& values) : masked_(values.size()) {
    MaskedMemory::mask(masked_.data(), values.data(), bytes());
  }
  explicit OnDevice(int64_t count) : OnDevice(std::vector<int64_t>(static_cast<size_t>(count), -1)) {}
  operator Buffer() { return {masked_.data(), count(), DataType::kInt64, Place::kDevice}; }
  operator ConstBuffer() { return Buffer(*this); }
  std::vector<int64_t> values() const {
    std::vector<int64_t> plain(masked_.size());
    MaskedMemory::mask(plain.data(), masked_.data(), bytes());
    return plain;
  }

 private:
  int64_t count() const { return static_cast<int64_t>(masked_.size()); }
  int64_t bytes() const { return 8 * count(); }
  std::vector<int64_t> masked_;
};
using Values = std::vector<int64_t>;
inline Buffer on_host(Values& values) {
  return {values.data(), static_cast<int64_t>(values.size()), DataType::kInt64};
}

}  // namespace conclave::comm
