// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/model/options.h"
#include "conclave/model/recompute.h"

namespace conclave::model {

// What a run needs, out of the options alone; nothing is allocated.

// What one of several ranks holds.
struct RankShare {
  int64_t ranks = 1;            // that share the batch
  int64_t expert_ranks = 1;     // of them, that share the experts
  bool shared_moments = false;  // zero_stage 1
  bool gather_tokens = false;   // every rank of those that share the experts gets the tokens of all
};

struct Accounting {
  int64_t total_parameters = 0;
  int64_t active_parameters = 0;  // used by one token
  double flops_per_token = 0;     // forward and backward: 6 per active matrix parameter plus attention scores
  int64_t training_state_bytes = 0;  // of a rank: parameters, gradients and two moments
};
// active_experts: that one token uses in a layer. bytes_per_value: of a parameter. router_parameters: of one
// router; null: a matrix [E, D].
Accounting account(const ModelOptions& options, int64_t vocab_size, int64_t active_experts,
                   int64_t seq_length, int64_t bytes_per_value, std::optional<int64_t> router_parameters = {},
                   const RankShare& share = {});

struct MicroBatch {
  int64_t size = 0;  // rows, each full
  int64_t seq_length = 0;
  int64_t active_experts = 0;                            // that one token uses in a layer
  c10::ScalarType activations = c10::ScalarType::Float;  // of the residual stream
  Recompute recompute = Recompute::kNone;
  RankShare share = {};
  c10::DeviceType device = c10::DeviceType::CPU;
};
// Estimate of the most that a micro-batch keeps at a time for its backward pass: the saved activations of the
// layers, those of the block that is being recomputed, the gradients that the loss holds, and its largest
// chunk of logits; experts are taken to be used evenly. Within a quarter of what is allocated
// (tests/model/accounting_test.cpp).
int64_t activation_bytes(const ModelOptions& options, int64_t vocab_size, const MicroBatch& micro_batch);

}  // namespace conclave::model
