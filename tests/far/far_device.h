// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>

#include <c10/core/Device.h>

#include "conclave/ops/kernel_table.h"

// A device without hardware, for what has to hold on every device: torch's HPU (which nothing here
// implements), whose memory this process may touch inside its operations only. Whoever reads a tensor of it
// through a pointer dies of SIGSEGV, whoever mixes it with tensors on the host gets an error, as on a GPU,
// and every operation for which a GPU would have to be waited for is counted.
namespace conclave::far {

inline const c10::Device kDevice{c10::DeviceType::HPU, 0};

// Registers the device; once a process. `kernels`: the table's functions are run inside the device.
void install(ops::KernelTable kernels);

struct Counts {
  int64_t waits = 0;    // values brought to the host, or shapes that depend on values
  int64_t uploads = 0;  // host to device
  Counts operator-(const Counts& other) const { return {waits - other.waits, uploads - other.uploads}; }
};
Counts counts();
// While it lives, every wait is an error that names the operation.
class NoWaits {
 public:
  NoWaits();
  ~NoWaits();
  NoWaits(const NoWaits&) = delete;
};

// How much may be allocated at a time from now on; what asks for more gets c10::OutOfMemoryError.
void limit_memory(size_t bytes);

// While it lives the device's memory may be touched by pointers.
class Inside {
 public:
  Inside();
  ~Inside();
  Inside(const Inside&) = delete;
};

}  // namespace conclave::far
