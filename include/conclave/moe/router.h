// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "conclave/config/fields.h"
#include "conclave/moe/forward_context.h"
#include "conclave/nn/module.h"

namespace conclave::moe {

// What a router promises, as a function of its options; `config check` reads it without building anything.
struct Caps {
  bool causal = true;                // a token's routing does not depend on later tokens of its document
  bool batch_independent = true;     // ... nor on other sequences of the micro-batch
  int64_t max_choices = 0;           // experts that one token asks for; 0: no fixed number
  bool selection_bias = false;       // has a bias that balance updates may change
  bool drops_in_training = false;    // a capacity limit may leave units out; generation runs without it
  bool drops_in_evaluation = false;  // ... also in evaluation, so that generation could not agree with it
  bool whole_group = false;          // looks at all units of a group: its group must be one document
  // A training forward launches the same on a device in every step: it draws nothing at random, follows no
  // schedule, reads nothing on the host and waits for nothing. What cuda_graph asks for.
  bool same_launches = false;
  // What a training forward leaves in the trace: "logits", "probs", "pairs" (a SparsePlan), "ranks" (choices
  // of a unit are in order of preference), or keys of RouterTrace::tensors. Losses are checked against it.
  std::vector<std::string> records = {};
};

// What a router is built for.
struct RouterShape {
  int64_t width = 0;        // D
  int64_t num_experts = 0;  // E
  int layer = 0;            // index of the layer, keys its random numbers
  c10::ScalarType dtype =
      c10::ScalarType::Float;  // of the router's own arithmetic: fp32, or fp64 in fp64 models
};

// Decides who goes where. Knows no ranks, no losses, no optimizer. `route` is a pure function of (parameters,
// inputs, random key): x_UD [U, D] holds the units only. Selections go through trace.decisions.decide(), so
// that a recomputed layer repeats them.
class Router : public nn::Module {
 public:
  virtual RoutingPlan route(const at::Tensor& x_UD, const UnitMap& units, const ForwardContext& context,
                            RouterTrace& trace) = 0;

  // The bias [E] fp32 that is added to scores for selection only and that a BalanceUpdater may change; saved
  // with the model. Undefined where a router selects nothing by score.
  virtual at::Tensor selection_bias() { return {}; }
};

struct RouterEntry : config::PluginInfo {
  std::function<Caps(const config::AnyOptions&)> caps;
  // Why the options do not suit a bank of that many experts, "" where they do; null: they always do.
  std::function<std::string(const config::AnyOptions&, int64_t num_experts)> refusal;
  std::function<std::shared_ptr<Router>(const config::AnyOptions&, const RouterShape&)> make;
};

}  // namespace conclave::moe
