// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include <c10/core/Device.h>

#include "conclave/config/fields.h"

// What a run computes on. Ranks share batch and experts; everything else is refused by name, so that a file
// written for another machine never trains something else in silence.
namespace conclave::train {

enum class Device { kAuto, kCpu, kCuda };
enum class Backend { kAuto, kLocal, kGloo, kNccl };

// `parallelism`
struct ParallelismOptions {
  std::optional<int64_t> data_parallel_size = {};  // auto: whatever the other sizes leave
  int64_t expert_parallel_size = 1;
  int64_t tensor_parallel_size = 1;
  int64_t expert_tensor_parallel_size = 1;
  int64_t zero_stage = 0;
  double timeout_seconds = 300;
  Backend backend = Backend::kAuto;
  void fields(config::Fields& f);
};

// "1, 2, 4, 8" for 8: what may be chosen where a size has to divide it.
std::string divisors_text(int64_t number);

// The device of a run: the GPU of that place on this node for `cuda`, made the current one. Throws
// ConfigError that says why there is none. `auto` must have been resolved.
c10::Device open_device(Device device, int local_rank = 0);

// Declares `device` at the top of the tree.
void declare_device(config::Fields& f, Device& device);

}  // namespace conclave::train
