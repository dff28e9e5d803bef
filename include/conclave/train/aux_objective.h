// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "conclave/comm/communicator.h"
#include "conclave/moe/registry.h"
#include "conclave/train/metrics.h"

namespace conclave::train {

// All auxiliary losses of a run over all MoE layers: their part of the objective, the counts of the whole
// step that some of them need before the first backward, and their values before the weight.
class AuxObjective {
 public:
  AuxObjective() = default;
  AuxObjective(const std::vector<config::Plugin>& losses, const moe::Registry& registry);

  // Forgets the counts and values of the step before.
  void begin_step();
  bool needs_exact_global_counts() const;
  // Adds the traces of one micro-batch of the counting pass.
  void count(const std::vector<moe::RouterTrace>& traces);
  // Makes the counts of this rank those of all; after the last `count`. Called by all ranks.
  void sum_counts(comm::Communicator& ranks);
  // `objective` plus weight * share of every loss and layer of one micro-batch.
  at::Tensor add_to(at::Tensor objective, const std::vector<moe::RouterTrace>& traces,
                    const moe::StepTotals& totals, int64_t step);
  // Makes the values of this rank those of all; after the last `add_to`. Called by all ranks.
  void sum_values(comm::Communicator& ranks);
  // The step's values before the weight, means over MoE layers; names are unique per (type, scope).
  std::vector<Metric> metrics() const;

 private:
  struct Term {
    std::string metric = "";
    std::unique_ptr<moe::AuxLoss> loss = {};
    double sum = 0.0;                       // over layers, micro-batches and ranks
    at::Tensor here = {};                   // fp64: of this rank, where the losses are
    std::map<int, at::Tensor> counts = {};  // of the step, by layer
  };
  std::vector<Term> terms_;
  size_t num_layers_ = 0;
};

}  // namespace conclave::train
