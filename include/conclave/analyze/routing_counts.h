// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "conclave/analyze/routing_record.h"
#include "conclave/data/batch.h"
#include "conclave/data/tokenizer.h"
#include "conclave/moe/forward_context.h"

namespace conclave::analyze {

// Bounds of one record, whatever the model: without them 48 layers of 128 experts over 150,000 tokens would
// be gigabytes.
struct CountLimits {
  size_t domain_cells = size_t{1} << 18;   // layers * experts * domains in a record
  size_t token_cells = size_t{1} << 23;    // layers * experts * vocabulary while counting, else no tokens
  size_t token_entries = size_t{1} << 14;  // tokens listed in a record, in each of its two lists
  size_t tokens_per_expert = 16;
};

// Sums of one layer over an evaluation. Amounts are added in the order of the batches and units.
class LayerCounts {
 public:
  // num_tokens 0: tokens are not counted. Domains from the last one on are added up in it.
  LayerCounts(int layer, size_t num_experts, size_t num_domains, size_t num_tokens);

  // Units that are not tokens (sequences, tasks) count in the experts' totals only.
  void add(const moe::RouterTrace& trace, const data::Batch& batch);
  LayerRecord record(const data::Tokenizer& tokenizer, size_t tokens_per_expert) const;

 private:
  void add_share(int64_t row, int64_t expert, double amount, bool kept, const data::Batch& batch);
  void add_plan(const moe::RoutingPlan& plan, const data::Batch& batch);
  void add_entropy(const at::Tensor& probs_UE);
  std::vector<TokenAmount> top_tokens(size_t expert, bool distinctive, const data::Tokenizer& tokenizer,
                                      size_t count) const;

  int layer_;
  size_t num_experts_, num_domains_, num_tokens_;
  RoutingUnit unit_ = RoutingUnit::kPairs;
  std::vector<double> requested_E_, kept_E_, domain_ED_, token_VE_;
  double entropy_sum_ = 0;
  int64_t num_entropies_ = 0;
};

}  // namespace conclave::analyze
