// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/routers/topk.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/moe/routers/logits.h"
#include "conclave/ops/functions.h"

namespace conclave::moe {

void TopKOptions::fields(config::Fields& f) {
  f("top_k", top_k, "Experts per token.").min(1).alias("num_experts_per_tok").alias("moe_router_topk");
  f("score_function", score_function,
    {{"softmax", ScoreFunction::kSoftmax}, {"sigmoid", ScoreFunction::kSigmoid}}, "Turns logits into scores.")
      .alias("scoring_func")
      .alias("moe_router_score_function");
  f("score_before_topk", score_before_topk,
    "Score all experts, then select (true), or select logits and score the selected ones (false).");
  f("norm_topk_prob", norm_topk_prob, "Make the weights of a token sum to one.").alias("normalize_topk_prob");
  f("routed_scaling_factor", routed_scaling_factor, "Multiplies the weights after normalisation.")
      .positive()
      .alias("moe_router_topk_scaling_factor")
      .alias("scaling_factor");
  f("jitter_eps", jitter_eps, "Training: the router's input times U(1 - eps, 1 + eps), elementwise.")
      .min(0)
      .less_than(1);
  f("capacity", capacity, "Limit on the units of one expert.");
  f("on_nonfinite", on_nonfinite, non_finite_names(),
    "A NaN or infinite logit stops the run, or counts as never selected.");
  f.check([this](config::Check& check) {
    const bool constant_weights =
        norm_topk_prob || (!score_before_topk && score_function == ScoreFunction::kSoftmax);
    if (top_k == 1 && constant_weights) {
      check.error("norm_topk_prob",
                  "with top_k: 1 every normalised weight is 1, so the router gets no gradient from the task",
                  "set norm_topk_prob: false (and score_before_topk: true), or top_k: 2");
    }
  });
}

namespace {

class TopKRouter : public Router {
 public:
  TopKRouter(const TopKOptions& options, const RouterShape& shape) : options_(options), shape_(shape) {
    CONCLAVE_CHECK(
        options.top_k >= 1 && options.top_k <= shape.num_experts,
        fmt::format("top_k ({}) must be between 1 and num_experts ({})", options.top_k, shape.num_experts));
    weight = register_tagged("weight", at::empty({shape.num_experts, shape.width}, shape.dtype),
                             {.role = nn::ParamRole::kRouter});
    bias_ = register_buffer("selection_bias", at::zeros({shape.num_experts}, at::kFloat));
  }

  RoutingPlan route(const at::Tensor& x_UD, const UnitMap& units, const ForwardContext& context,
                    RouterTrace& trace) override {
    trace.logits_UE = at::linear(jittered(x_UD.to(shape_.dtype), units, context), weight);
    const auto logits_UE = checked_logits(trace.logits_UE, options_.on_nonfinite, shape_.layer);
    const auto log_scores_UE = options_.score_function == ScoreFunction::kSoftmax
                                   ? logits_UE.log_softmax(-1)
                                   : at::log_sigmoid(logits_UE);
    trace.probs_UE = log_scores_UE.exp();

    const int64_t k = options_.top_k, num_units = x_UD.size(0);
    const auto chosen_UK = ops::select_top_k(selection_scores(logits_UE, trace.probs_UE), k);
    const auto weight_UK = weights(logits_UE, log_scores_UE, trace.probs_UE, chosen_UK);
    auto unit_N = at::arange(num_units, at::kInt).repeat_interleave(k);
    auto choice_N = at::arange(k, at::kInt).repeat({num_units});
    auto expert_N = chosen_UK.reshape({-1});
    auto weight_N = weight_UK.reshape({-1});
    if (options_.on_nonfinite == NonFinitePolicy::kMask) {
      const auto present =
          expert_N.ge(0).nonzero().squeeze(1);  // a token may have fewer than k comparable scores
      unit_N = unit_N.index_select(0, present);
      choice_N = choice_N.index_select(0, present);
      expert_N = expert_N.index_select(0, present);
      weight_N = weight_N.index_select(0, present);
    }
    at::Tensor kept_N;
    if (const auto factor = capacity_factor(context.phase)) {
      const int64_t capacity =
          expert_capacity(options_.capacity, factor->at(context.step), num_units, shape_.num_experts, k);
      kept_N = keep_within_capacity(options_.capacity.order, capacity, shape_.num_experts, unit_N, expert_N,
                                    choice_N, weight_N, units.global_id_U, context.random, shape_.layer);
    }
    return {units, shape_.num_experts,
            make_sparse_plan(num_units, shape_.num_experts, unit_N, expert_N, choice_N, weight_N, kept_N)};
  }

  at::Tensor selection_bias() override { return bias_; }

  at::Tensor weight;  // [E, D]

 private:
  // Null: dropless. Generation sees a few tokens at a time, of which no share can be taken.
  std::optional<config::Value> capacity_factor(Phase phase) const {
    if (phase == Phase::kGenerate) return std::nullopt;
    return phase == Phase::kTrain ? options_.capacity.factor : options_.capacity.eval_factor;
  }

  at::Tensor jittered(const at::Tensor& x_UD, const UnitMap& units, const ForwardContext& context) const {
    const double eps = context.phase == Phase::kTrain ? options_.jitter_eps.at(context.step) : 0.0;
    if (eps == 0.0) return x_UD;
    auto factor = at::empty(x_UD.sizes(), at::kDouble);
    double* out = factor.data_ptr<double>();
    const int64_t* id = units.global_id_U.const_data_ptr<int64_t>();
    for (int64_t u = 0; u < x_UD.size(0); ++u) {
      for (int64_t d = 0; d < x_UD.size(1); ++d) {
        const double draw =
            context.random.uniform(RandomStream::kRouterJitter, static_cast<uint32_t>(shape_.layer),
                                   static_cast<uint64_t>(id[u]), static_cast<uint32_t>(d));
        *out++ = 1.0 - eps + 2.0 * eps * draw;
      }
    }
    return x_UD.mul(factor.to(shape_.dtype));
  }

  // Scores are monotone in the logits, so logits decide (a score may underflow, a logit does not) until there
  // is a bias, which is added to the score. A masked logit becomes NaN, which is never chosen.
  at::Tensor selection_scores(const at::Tensor& logits_UE, const at::Tensor& probs_UE) const {
    const auto logits = logits_UE.detach();
    const bool biased = bias_.ne(0).any().item<bool>();
    const auto scores = biased ? probs_UE.detach().add(bias_) : logits;
    return scores.masked_fill(logits.isinf(), NAN);
  }

  at::Tensor weights(const at::Tensor& logits_UE, const at::Tensor& log_scores_UE, const at::Tensor& probs_UE,
                     const at::Tensor& chosen_UK) const {
    const auto index_UK = chosen_UK.clamp_min(0).to(at::kLong);
    const auto missing = chosen_UK.lt(0);
    at::Tensor weight_UK;
    if (options_.norm_topk_prob) {
      // Renormalised in log space: exact however small the selected scores are, with no epsilon.
      weight_UK = log_scores_UE.gather(1, index_UK).masked_fill(missing, -INFINITY).softmax(-1);
    } else if (!options_.score_before_topk && options_.score_function == ScoreFunction::kSoftmax) {
      weight_UK = logits_UE.gather(1, index_UK).masked_fill(missing, -INFINITY).softmax(-1);
    } else {
      weight_UK = probs_UE.gather(1, index_UK);
    }
    return options_.routed_scaling_factor == 1.0 ? weight_UK : weight_UK.mul(options_.routed_scaling_factor);
  }

  TopKOptions options_;
  RouterShape shape_;
  at::Tensor bias_;  // [E] fp32
};

}  // namespace

std::shared_ptr<Router> make_topk_router(const TopKOptions& options, const RouterShape& shape) {
  return std::make_shared<TopKRouter>(options, shape);
}

RouterEntry topk_entry() {
  RouterEntry entry;
  entry.name = "topk";
  entry.doc = "Each token takes its k best experts.";
  entry.defaults = [] { return config::AnyOptions(TopKOptions{}); };
  entry.caps = [](const config::AnyOptions& options) {
    const auto& capacity = options.as<TopKOptions>().capacity;
    const bool limited = capacity.factor || capacity.eval_factor;
    // A limit makes drops depend on other sequences. In order of position the field counts it as causal,
    // although a second choice queues behind the first choices of later tokens; the other orders look at the
    // whole batch.
    return Caps{.causal = !limited || capacity.order == CapacityOrder::kPosition,
                .batch_independent = !limited,
                .max_choices = options.as<TopKOptions>().top_k,
                .selection_bias = true,
                .drops_in_training = capacity.factor.has_value(),
                .drops_in_evaluation = capacity.eval_factor.has_value()};
  };
  entry.make = [](const config::AnyOptions& options, const RouterShape& shape) {
    return make_topk_router(options.as<TopKOptions>(), shape);
  };
  return entry;
}

}  // namespace conclave::moe
