// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "conclave/core/random.h"
#include "conclave/moe/routing_plan.h"

namespace conclave::moe {

struct DispatchLayout;

enum class Phase { kTrain, kEval, kGenerate };

// The discrete choices of one routing, in the order they were made. A recomputed layer gets those of the
// first pass and repeats them instead of choosing again, so that a score that comes out a rounding error
// different cannot send a token elsewhere. Every selection of a router goes through decide().
class Decisions {
 public:
  // The next decision: choose(), or what it was in the first pass. Undefined tensors are decisions too.
  template <class Choose>
  at::Tensor decide(Choose choose) {
    if (!replaying_) made_.push_back(choose());
    return made_.at(next_++);
  }
  // The same decisions, to be repeated.
  Decisions repeated() const {
    Decisions again = *this;
    again.replaying_ = true;
    again.next_ = 0;
    return again;
  }

  // Sizes of the exchange between ranks that carries the choices out; likewise found out once.
  std::shared_ptr<DispatchLayout> layout = {};

 private:
  std::vector<at::Tensor> made_;
  size_t next_ = 0;
  bool replaying_ = false;
};

// What losses, balance updaters and metrics read of one MoE layer. `tensors` are outputs of the recomputed
// function; `plan` with its counts is taken once and replayed when a block is recomputed.
struct RouterTrace {
  int layer = 0;
  at::Tensor logits_UE = {}, probs_UE = {};  // fp32 or wider, differentiable; undefined where a gate has none
  // Further differentiable outputs, e.g. "noise_sigma", "selector_UKE".
  std::map<std::string, at::Tensor> tensors = {};
  int64_t num_choices = 0;  // experts that each unit asked for; 0: no fixed number
  RoutingPlan plan = {};
  Decisions decisions = {};
  at::Tensor non_finite = {};  // int64: logits that are not finite, to be refused; undefined: none
  int64_t most_rank_rows = 0;  // expert rows of the rank that has most of them; 0 without expert parallelism
};

// Everything a forward needs beside x. The caller owns it, the layers never do; one per micro-batch.
struct ForwardContext {
  Phase phase = Phase::kTrain;
  int64_t step = 0;       // optimizer step, for scheduled values
  RandomKey random = {};  // seed and step of all random decisions of this forward
  UnitMap tokens = {};    // tokens of the micro-batch; num_units == 0 and num_rows == 0: every row is a token
  std::vector<RouterTrace> traces = {};  // appended by each MoE layer in order
  std::vector<Decisions> replay = {};  // a second pass: the decisions of its MoE layers, in order; else empty

  // A context for a plain tensor of `rows` tokens in one sequence, for programs that have no padding or
  // documents.
  static ForwardContext plain(int64_t rows, Phase phase = Phase::kTrain,
                              c10::Device device = c10::DeviceType::CPU);
};

// Logits that are not finite where they have to be (router.on_nonfinite: error). On the CPU a router throws
// by itself; on a device, for which the host would have to wait, the pass goes on with garbage until somebody
// asks.
class RefusedLogits {
 public:
  void add(const std::vector<RouterTrace>& traces);
  // Throws Error (kind kDiverged) that names the first layer with such logits. Waits for the device.
  void check() const;

 private:
  struct Logits {
    int layer = 0;
    int64_t count = 0;
    at::Tensor non_finite = {};
  };
  std::vector<Logits> on_devices_;
};

}  // namespace conclave::moe
