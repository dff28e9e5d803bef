// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>

#include "conclave/analyze/routing_counts.h"
#include "conclave/core/log.h"
#include "conclave/train/evaluation_observer.h"

namespace conclave::analyze {

struct TraceOptions {
  std::filesystem::path run = {};  // the run folder
  // The step that the run continues from: files of later steps, which an interrupted run wrote, are removed.
  // -1: the run starts from nothing, and so does its folder `routing`.
  int64_t last_step = -1;
  // At most so many files: when there are more, every other one goes, the first and the newest stay.
  size_t max_files = 128;
  CountLimits limits = {};
  Log log = {};
};

// Writes one routing record per evaluated step; an evaluation of the same step replaces it. A view of the
// run: when it cannot be written, one warning says so and training goes on without it. A model without MoE
// layers writes nothing.
class TraceObserver : public train::EvaluationObserver {
 public:
  explicit TraceObserver(TraceOptions options);
  void begin(const train::EvaluationStart& start) override;
  void observe(const data::Batch& batch, std::span<const moe::RouterTrace> traces) override;
  void end() override;

 private:
  void make_layers(std::span<const moe::RouterTrace> traces);
  void thin_out() const;
  void give_up(const std::string& reason);

  TraceOptions options_;
  bool given_up_ = false;
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  RoutingRecord record_;
  std::vector<LayerCounts> layers_;
  size_t tokens_per_expert_ = 0;
};

}  // namespace conclave::analyze
