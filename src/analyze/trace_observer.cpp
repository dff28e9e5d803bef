// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/trace_observer.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"

namespace conclave::analyze {

TraceObserver::TraceObserver(TraceOptions options) : options_(std::move(options)) {
  try {
    for (const int64_t step : routing_steps(options_.run)) {
      if (step > options_.last_step) std::filesystem::remove(routing_file(options_.run, step));
    }
  } catch (const std::exception& error) {
    give_up(error.what());
  }
}

void TraceObserver::begin(const train::EvaluationStart& start) {
  tokenizer_ = start.dataset->tokenizer;
  record_ = {.step = start.step, .whole = start.whole, .domains = start.dataset->domain_names};
  layers_.clear();
}

void TraceObserver::make_layers(std::span<const moe::RouterTrace> traces) {
  size_t num_experts = 0;  // of all layers
  for (const auto& trace : traces) num_experts += static_cast<size_t>(trace.plan.num_experts);
  const auto& limits = options_.limits;
  const size_t max_domains = std::max<size_t>(limits.domain_cells / num_experts, 1);
  if (record_.domains.size() > max_domains) {
    record_.domains.resize(max_domains);
    record_.domains.back() = "other";
  }
  tokens_per_expert_ = std::min(limits.tokens_per_expert, limits.token_entries / num_experts);
  auto num_tokens = static_cast<size_t>(tokenizer_->vocab_size());
  if (num_tokens * num_experts > limits.token_cells || tokens_per_expert_ == 0) num_tokens = 0;
  for (const auto& trace : traces) {
    layers_.emplace_back(trace.layer, static_cast<size_t>(trace.plan.num_experts), record_.domains.size(),
                         num_tokens);
  }
}

void TraceObserver::observe(const data::Batch& batch, std::span<const moe::RouterTrace> traces) {
  if (given_up_ || traces.empty()) return;
  if (layers_.empty()) make_layers(traces);
  CONCLAVE_CHECK(layers_.size() == traces.size(), "TraceObserver: the number of MoE layers changed");
  for (size_t i = 0; i < traces.size(); ++i) layers_[i].add(traces[i], batch);
  record_.num_tokens += batch.num_tokens;
}

void TraceObserver::end() {
  if (given_up_ || layers_.empty()) return;
  try {
    for (const auto& layer : layers_) record_.layers.push_back(layer.record(*tokenizer_, tokens_per_expert_));
    std::filesystem::create_directories(options_.run / kRoutingFolder);
    write_file_atomically(routing_file(options_.run, record_.step), render_routing_record(record_));
    thin_out();
  } catch (const std::exception& error) {
    give_up(error.what());
  }
}

void TraceObserver::thin_out() const {
  const auto steps = routing_steps(options_.run);
  if (steps.size() <= options_.max_files) return;
  for (size_t i = 1; i + 1 < steps.size(); i += 2) {
    std::filesystem::remove(routing_file(options_.run, steps[i]));
  }
}

void TraceObserver::give_up(const std::string& reason) {
  given_up_ = true;
  options_.log.warn(fmt::format(
      "routing is not recorded from here on ({}); training goes on, the report will lack it", reason));
}

}  // namespace conclave::analyze
