// SPDX-License-Identifier: Apache-2.0
// A router of our own: logits are cosines between token and expert vectors over a temperature (X-MoE, Chi et
// al., 2022, without its projection); each token takes its k best experts, weighted by a softmax over the
// chosen ones.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include "conclave/moe/router.h"
#include "conclave/moe/stages/scores.h"
#include "conclave/ops/functions.h"

namespace my_routers {

using namespace conclave;
using namespace conclave::moe;

// What stands beside `type: my_cosine` in a configuration file, or is filled in by a program.
struct MyCosineOptions {
  int64_t top_k = 2;
  double temperature = 0.1;
  void fields(config::Fields& f) {
    f("top_k", top_k, "Experts per token.").min(1);
    f("temperature", temperature, "Cosines are divided by it.").positive();
  }
};

class MyCosineRouter : public Router {
 public:
  MyCosineRouter(const MyCosineOptions& options, const RouterShape& shape)
      : options_(options), shape_(shape) {
    weight_ED_ = register_tagged("weight", at::empty({shape.num_experts, shape.width}, shape.dtype),
                                 {.role = nn::ParamRole::kRouter});
  }

  RoutingPlan route(const at::Tensor& x_UD, const UnitMap& units, const ForwardContext&,
                    RouterTrace& trace) override {
    // Losses and metrics read the trace: logits and scores, differentiable.
    trace.logits_UE = unit(x_UD.to(shape_.dtype)).matmul(unit(weight_ED_).t()).div(options_.temperature);
    trace.probs_UE = trace.logits_UE.softmax(-1);
    const auto logits_UE = checked_logits(trace.logits_UE, NonFinitePolicy::kError, shape_.layer, trace);

    const int64_t num_units = x_UD.size(0), k = options_.top_k;
    // Ties go to the lowest expert; a recomputed layer repeats the decision.
    const auto chosen_UK = trace.decisions.decide([&] { return ops::select_top_k(logits_UE.detach(), k); });
    // On a GPU refused logits are told later; until then there may be choices of -1, which are no pairs.
    const auto weight_UK = logits_UE.gather(1, chosen_UK.clamp_min(0).to(at::kLong)).softmax(-1);
    // One pair a unit and choice, sorted by both; no capacity, so every pair is kept.
    const auto int32 = chosen_UK.options();  // where the rows are
    return {units, shape_.num_experts,
            make_sparse_plan(num_units, shape_.num_experts, at::arange(num_units, int32).repeat_interleave(k),
                             chosen_UK.reshape({-1}), at::arange(k, int32).repeat({num_units}),
                             weight_UK.reshape({-1}), /*kept_N=*/{})};
  }

 private:
  // Rows of norm 1; the epsilon shortens rows of norm below about 1e-2.
  static at::Tensor unit(const at::Tensor& v) { return v.div(v.square().sum(-1, true).add(1e-6).sqrt()); }

  MyCosineOptions options_;
  RouterShape shape_;
  at::Tensor weight_ED_;
};

RouterEntry my_cosine_entry() {
  RouterEntry entry;
  entry.name = "my_cosine";
  entry.doc = "Each token takes the k experts whose vectors point its way.";
  entry.defaults = [] { return config::AnyOptions(MyCosineOptions{}); };
  entry.caps = [](const config::AnyOptions& options) {
    return Caps{.causal = true,
                .batch_independent = true,
                .max_choices = options.as<MyCosineOptions>().top_k,
                .records = {"logits", "probs", "pairs", "ranks"}};
  };
  entry.make = [](const config::AnyOptions& options, const RouterShape& shape) -> std::shared_ptr<Router> {
    return std::make_shared<MyCosineRouter>(options.as<MyCosineOptions>(), shape);
  };
  return entry;
}

}  // namespace my_routers
