// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>

#include "conclave/comm/communicator.h"

// Communicators that take buffers on a device.
namespace conclave::comm {

// Copies from and to the memory of the device that the caller computes on. Every copy comes after what the
// caller's stream holds, and before what it gets next. What lies on the host is free again, or complete, when
// a copy returns. No copy is empty, and the two sides do not overlap.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual void to_host(void* host, const void* device, int64_t bytes) = 0;
  virtual void to_device(void* device, const void* host, int64_t bytes) = 0;
  virtual void within(void* to, const void* from, int64_t bytes) = 0;  // need not have ended on return
};

// One communicator of two over the same ranks, in the same order: buffers on the host go through `host`,
// buffers on the device through `device`, the barrier through `host`. Ranks start and wait for the operations
// of both in one order.
std::unique_ptr<Communicator> host_and_device(std::shared_ptr<Communicator> host,
                                              std::shared_ptr<Communicator> device);

// Buffers on the device, exchanged through `host`: copied to the host when an operation starts and back in
// Work::wait(), so both wait for the caller's stream. Sums have the bits of `host`. Where `host` has one rank
// alone, nothing leaves the device.
std::unique_ptr<Communicator> staged(std::shared_ptr<Communicator> host,
                                     std::shared_ptr<DeviceMemory> memory);

// The only rank of a run, or of a group, for buffers on the host and on the device.
std::unique_ptr<Communicator> make_single_with_device(std::shared_ptr<DeviceMemory> memory);

}  // namespace conclave::comm
