// SPDX-License-Identifier: Apache-2.0
// What a step allocates, and a batch for it.
#pragma once
#include <algorithm>

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "conclave/data/batch.h"

namespace conclave {

// Bytes of one kind of device that are allocated and not freed, largest value over time.
class PeakMemory : public c10::MemoryReportingInfoBase {
 public:
  explicit PeakMemory(c10::DeviceType type) : type_(type) {}
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device device) override {
    if (device.type() != type_) return;
    now_ += size;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  c10::DeviceType type_;
  int64_t now_ = 0, peak_ = 0;
};

// Rows of one document each, without padding.
inline data::Batch full_rows(int64_t rows, int64_t length) {
  data::Batch batch;
  batch.num_sequences = rows;
  batch.seq_length = length;
  for (int64_t i = 0; i < batch.size(); ++i) {
    batch.token.push_back(static_cast<int32_t>(i * 17 % 257));
    batch.target.push_back(static_cast<int32_t>(i * 13 % 257));
    batch.document.push_back(0);
    batch.position.push_back(static_cast<int32_t>(i % length));
    batch.domain.push_back(0);
    batch.global_id.push_back(i);
  }
  batch.num_tokens = batch.num_targets = batch.size();
  return batch;
}

}  // namespace conclave
