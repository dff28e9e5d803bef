// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>

#include "conclave/data/batch.h"
#include "conclave/data/dataset.h"
#include "conclave/moe/forward_context.h"

namespace conclave::train {

struct EvaluationStart {
  int64_t step = 0;    // finished optimizer steps
  bool whole = false;  // all held-out text instead of the fixed sample
  const data::Dataset* dataset = nullptr;
};

// Looks at an evaluation while it runs. It sees the batches and the traces of their forward passes and must
// change neither them nor the model: a run with and without an observer is bitwise the same.
class EvaluationObserver {
 public:
  virtual ~EvaluationObserver() = default;
  virtual void begin(const EvaluationStart& start) = 0;
  virtual void observe(const data::Batch& batch, std::span<const moe::RouterTrace> traces) = 0;
  virtual void end() = 0;  // after the last batch
};

}  // namespace conclave::train
