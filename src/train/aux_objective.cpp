// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/aux_objective.h"

#include <algorithm>

#include "conclave/ops/collectives.h"

namespace conclave::train {

AuxObjective::AuxObjective(const std::vector<config::Plugin>& losses, const moe::Registry& registry) {
  for (const auto& loss : losses) {
    const auto& entry = registry.aux_losses.at(loss.type);
    terms_.push_back(
        {.metric = "moe/" + entry.traits(loss.options).metric, .loss = entry.make(loss.options)});
  }
}

void AuxObjective::begin_step() {
  num_layers_ = 0;
  for (auto& term : terms_) {
    term.sum = 0.0;
    term.here.reset();
    term.counts.clear();
  }
}

bool AuxObjective::needs_exact_global_counts() const {
  return std::any_of(terms_.begin(), terms_.end(),
                     [](const Term& term) { return term.loss->needs_exact_global_counts(); });
}

void AuxObjective::count(const std::vector<moe::RouterTrace>& traces) {
  for (auto& term : terms_) {
    if (!term.loss->needs_exact_global_counts()) continue;
    for (const auto& trace : traces) {
      const auto counts = term.loss->count(trace);
      auto& sum = term.counts[trace.layer];
      sum = sum.defined() ? sum.add(counts) : counts;
    }
  }
}

void AuxObjective::sum_counts(comm::Communicator& ranks) {
  for (auto& term : terms_) {
    for (auto& [layer, counts] : term.counts) counts = ops::sum_over_ranks(counts, ranks);
  }
}

void AuxObjective::sum_values(comm::Communicator& ranks) {
  std::vector<double> sums;
  for (const auto& term : terms_) sums.push_back(term.here.defined() ? term.here.item<double>() : 0.0);
  ranks.all_reduce({sums.data(), static_cast<int64_t>(sums.size()), comm::DataType::kFloat64});
  for (size_t i = 0; i < terms_.size(); ++i) terms_[i].sum = sums[i];
}

at::Tensor AuxObjective::add_to(at::Tensor objective, const std::vector<moe::RouterTrace>& traces,
                                const moe::StepTotals& totals, int64_t step) {
  num_layers_ = traces.size();
  for (const auto& trace : traces) {
    for (auto& term : terms_) {
      auto of_layer = totals;
      const auto counts = term.counts.find(trace.layer);
      if (counts != term.counts.end()) of_layer.step_counts = counts->second;
      const auto share = term.loss->share(trace, of_layer);
      const auto value = share.detach().to(at::kDouble);
      term.here = term.here.defined() ? term.here.add(value) : value;
      objective = objective.add(share, term.loss->weight(step));
    }
  }
  return objective;
}

std::vector<Metric> AuxObjective::metrics() const {
  std::vector<Metric> metrics;
  for (const auto& term : terms_) {
    metrics.push_back({term.metric, term.sum / static_cast<double>(std::max<size_t>(num_layers_, 1))});
  }
  return metrics;
}

}  // namespace conclave::train
