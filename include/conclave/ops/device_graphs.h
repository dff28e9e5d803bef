// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <functional>

namespace conclave::ops {

// Recordings of what functions launch on a device, each repeated with one call (CUDA graphs). They share one
// piece of memory: what a recording frees, a later one may use, so they are replayed in the order in which
// they were recorded.
class DeviceGraphs {
 public:
  virtual ~DeviceGraphs() = default;
  // Runs `body` as it will be recorded, so that what is set up at its first use is there.
  virtual void rehearse(const std::function<void()>& body) = 0;
  // The next recording, number 0, 1, ...: what `body` launches, with the tensors it used. Results may hold
  // nothing before the first replay. Throws Error where `body` waits for the device or reads memory of the
  // host: neither can be repeated. What it throws itself comes through. Either way nothing was recorded.
  virtual void record(const std::function<void()>& body) = 0;
  // Returns at once; the launches follow those made before.
  virtual void replay(size_t recording) = 0;
};

}  // namespace conclave::ops
