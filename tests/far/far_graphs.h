// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>

#include "conclave/ops/device_graphs.h"

// Recordings of what the device of the tests computes: every operation, with the tensors that it reads and
// writes. As on a GPU, a recording that would wait or that reads the host is an error, scalars stay what they
// were, and what was computed is there after a replay only.
namespace conclave::far {

std::unique_ptr<ops::DeviceGraphs> make_graphs();
int64_t num_replays();

// For the device: whether what it computes is to be recorded, and how to compute it again. `spoil`
// overwrites what it made.
bool is_recording();
void on_record(std::function<void()> again, std::function<void()> spoil);

// Computes without recording: part of something that is recorded as a whole.
class Unrecorded {
 public:
  Unrecorded();
  ~Unrecorded();
  Unrecorded(const Unrecorded&) = delete;

 private:
  bool was_recording_;
};

}  // namespace conclave::far
