// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "conclave/moe/dispatcher.h"
#include "conclave/moe/router.h"
#include "conclave/nn/layers.h"
#include "conclave/ops/expert_mlp.h"

namespace conclave::moe {

class RecordedPass;

// Which rank holds expert e of E on P ranks. static: e / (E / P), neighbours together; round_robin: e mod P.
enum class ExpertPlacement { kStatic, kRoundRobin };

// Which experts of a layer this rank holds.
struct ExpertShare {
  int64_t first = 0;  // global id
  int64_t here = 1;   // how many: first, first + stride, ...
  int64_t stride = 1;
  int64_t num_experts = 1;  // on all ranks
};

// A bank of E = `here` SwiGLU experts, stacked: w13 [E, 2F, D] (gate beside up), w2 [E, D, F].
class SwiGluExperts : public nn::Module {
 public:
  SwiGluExperts(const ExpertShare& share, int64_t width, int64_t inner, c10::ScalarType dtype);
  at::Tensor run(const ops::Rows& rows, const at::Tensor& weights_A);  // [A, D], weighted
  at::Tensor w13, w2;
};

struct SharedExpertOptions {
  int64_t width = 0;  // inner width of all shared experts together; 0: none
  bool gate = false;  // multiply by sigmoid(x w), as Qwen2-MoE
};

struct MoeLayerOptions {
  int64_t width = 256;         // D
  int64_t num_experts = 8;     // E
  int64_t expert_width = 256;  // F
  SharedExpertOptions shared = {};
  int layer = 0;
  // Ranks that share the experts, E / P each; all of them run the layer together, forward and backward. null:
  // all experts are here.
  std::shared_ptr<comm::Communicator> expert_parallel = {};
  bool gather_tokens = false;  // to all these ranks, instead of sending each to the ranks of its experts
  ExpertPlacement placement = ExpertPlacement::kStatic;
  DispatchLimits limits = {};  // of these ranks
  // Send these ranks as many rows for an expert as its capacity, so that no count is waited for.
  bool pad_to_capacity = false;
  // On a device: a training pass over rows without padding is recorded once for each shape, with its
  // backward, and replayed (ops/graphed.h). Its router must be one whose Caps say same_launches; run the
  // backward pass before the next run, and run from one thread at a time. The next run overwrites what
  // this one returned and its trace's tensors, but for its counts. Not with expert_parallel; a pass that
  // repeats the decisions of another is not recorded.
  bool cuda_graph = false;
  c10::ScalarType dtype = c10::ScalarType::Float;  // of the parameters; fp32 ones take fp32 and bf16 inputs
};

// y_t = sum_e w_te E_e(x_t) + shared(x_t). Executes every kind of plan.
class MoeLayer : public nn::Module {
 public:
  MoeLayer(const MoeLayerOptions& options, std::shared_ptr<Router> router);
  ~MoeLayer() override;

  // x [..., D] -> same shape; appends this layer's trace to the context. Padding rows give 0.
  at::Tensor run(const at::Tensor& x, ForwardContext& context);
  // For torch::nn::Sequential: every row is a token, the trace is dropped. Training or evaluation as the
  // module says.
  at::Tensor forward(const at::Tensor& x);
  Router& router() { return *router_; }
  // Another budget (DispatchLimits) from the next run on; the same on all ranks.
  void set_rank_budget(std::optional<int64_t> rows) { options_.limits.rank_budget = rows; }

 private:
  // x_UD: the units' rows, without padding.
  at::Tensor run_units(const at::Tensor& x_UD, ForwardContext& context);
  SparsePlan pairs_of(const RoutingPlan& plan) const;
  SparsePlan placed(SparsePlan pairs) const;
  SparsePlan padded(SparsePlan pairs) const;
  SparsePlan limited(const SparsePlan& pairs, const ForwardContext& context, RouterTrace& trace);
  at::Tensor execute(const RoutingPlan& plan, const SparsePlan& pairs, DispatchLayout& layout,
                     const at::Tensor& x_UD);
  at::Tensor run_experts(const SparsePlan& pairs, DispatchLayout& layout, const at::Tensor& x_UD);
  at::Tensor run_slots(const SlotPlan& plan, const SparsePlan& pairs, DispatchLayout& layout,
                       const at::Tensor& x_UD);

  MoeLayerOptions options_;
  std::shared_ptr<Router> router_;
  std::shared_ptr<SwiGluExperts> experts_;
  std::shared_ptr<nn::SwiGluMlp> shared_experts_;
  std::shared_ptr<nn::Linear> shared_gate_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<RecordedPass> recorded_;  // cuda_graph
};

}  // namespace conclave::moe
