// SPDX-License-Identifier: Apache-2.0
// The top-k pipeline against a plain loop over tokens, experts and choices, in double: values and gradients.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include "small_layer.h"

namespace {

using namespace small;

struct Choice {
  int64_t unit = 0, expert = 0, rank = 0;
  at::Tensor score = {};  // differentiable
  at::Tensor weight = {};
  bool kept = true;
};

at::Tensor total(const std::vector<at::Tensor>& values) {
  auto sum = values.front();
  for (size_t i = 1; i < values.size(); ++i) sum = sum.add(values[i]);
  return sum;
}

// The pipeline for one micro-batch, written token by token.
class PlainPipeline {
 public:
  PlainPipeline(MoeLayer& layer, const TopKOptions& options, const ForwardContext& context)
      : layer_(layer), o_(options), context_(context) {}

  at::Tensor run(const at::Tensor& x) {
    choices_.clear();
    for (int64_t t = 0; t < x.size(0); ++t) choose(t, scores(x[t], t));
    if (training() ? o_.capacity.factor : o_.capacity.eval_factor) drop();
    std::vector<at::Tensor> rows;
    for (int64_t t = 0; t < x.size(0); ++t) {
      auto y = x[t].mul(0);
      for (const auto& c : choices_) {
        if (c.unit == t && c.kept) y = y.add(expert_of(layer_, x[t], c.expert).mul(c.weight));
      }
      rows.push_back(y);
    }
    return at::stack(rows);
  }
  const std::vector<Choice>& choices() const { return choices_; }

 private:
  bool training() const { return context_.phase == Phase::kTrain; }
  uint64_t id(int64_t t) const {
    return static_cast<uint64_t>(context_.tokens.global_id_U[t].item<int64_t>());
  }

  std::vector<at::Tensor> scores(at::Tensor x, int64_t t) {
    const double eps = training() ? o_.jitter_eps.at(0) : 0.0;
    std::vector<double> factor;
    for (int64_t d = 0; d < kModel; ++d) {
      factor.push_back(1 - eps + 2 * eps * context_.random.uniform(RandomStream::kRouterJitter, 3, id(t), d));
    }
    x = x.mul(at::tensor(factor, at::kDouble));
    const auto p = layer_.named_parameters();
    std::vector<at::Tensor> logits;
    for (int64_t e = 0; e < kBank; ++e) {
      auto z = p["router.weight"][e].mul(x).sum();
      const double draw = context_.random.normal(RandomStream::kRouterNoise, 3, id(t), e);
      if (training() && o_.noise.type == NoiseType::kGaussian) z = z.add(o_.noise.std.at(0) * draw);
      if (training() && o_.noise.type == NoiseType::kLearnedGaussian) {
        const auto sigma = at::softplus(p["router.noise_weight"][e].mul(x).sum()).add(o_.noise.epsilon);
        z = z.add(sigma.mul(draw));
      }
      logits.push_back(o_.score_function == ScoreFunction::kSigmoid ? z.sigmoid() : z.exp());
    }
    if (o_.score_function == ScoreFunction::kSigmoid) return logits;
    const auto sum = total(logits);
    for (auto& z : logits) z = z.div(sum);
    return logits;
  }

  // The experts that a token may choose, by the groups' scores.
  std::vector<bool> allowed(const std::vector<double>& value) {
    std::vector<bool> all(kBank, true);
    if (!o_.group_limited) return all;
    const auto& g = *o_.group_limited;
    const int64_t size = kBank / g.num_groups;
    std::vector<std::pair<double, int64_t>> order;
    for (int64_t i = 0; i < g.num_groups; ++i) {
      std::vector<double> inside(value.begin() + i * size, value.begin() + (i + 1) * size);
      std::sort(inside.rbegin(), inside.rend());
      order.emplace_back(g.group_score == GroupScore::kMax ? inside[0] : inside[0] + inside[1], -i);
    }
    std::sort(order.rbegin(), order.rend());
    for (int64_t i = g.topk_groups; i < g.num_groups; ++i) {
      for (int64_t e = 0; e < size; ++e) all[static_cast<size_t>(-order[i].second * size + e)] = false;
    }
    return all;
  }

  void choose(int64_t t, const std::vector<at::Tensor>& score) {
    const auto bias = layer_.router().selection_bias();
    std::vector<double> value;
    for (int64_t e = 0; e < kBank; ++e) value.push_back(score[e].item<double>() + bias[e].item<float>());
    const auto may = allowed(value);
    std::vector<int64_t> order(kBank);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return may[a] != may[b] ? may[a] : value[a] > value[b]; });
    std::vector<at::Tensor> selected;
    for (int64_t j = 0; j < o_.top_k; ++j) selected.push_back(score[order[j]]);
    const auto sum = total(selected);
    for (int64_t j = 0; j < o_.top_k; ++j) {
      const auto normalised = selected[j].div(sum);
      if (o_.top_k == 2 && j == 1 && o_.second_expert_policy.train == SecondExpert::kRandom && training()) {
        const double draw = context_.random.uniform(RandomStream::kSecondExpert, 3, id(t));
        if (draw >= normalised.item<double>() / o_.second_expert_policy.threshold) continue;
      }
      choices_.push_back(
          {.unit = t,
           .expert = order[j],
           .rank = j,
           .score = selected[j],
           .weight = (o_.normalises() ? normalised : selected[j]).mul(o_.routed_scaling_factor)});
    }
  }

  void drop() {
    const double factor = (training() ? o_.capacity.factor : o_.capacity.eval_factor)->at(0);
    const auto limit = static_cast<int64_t>(std::ceil(o_.top_k * kUnits / double{kBank} * factor));
    std::vector<size_t> queue(choices_.size());
    std::iota(queue.begin(), queue.end(), 0);
    const auto rank = [&](const Choice& c) {
      const double chance = context_.random.uniform(RandomStream::kCapacityOrder, 3, id(c.unit));
      switch (o_.capacity.order) {
        case CapacityOrder::kProb:
          return -c.weight.item<double>();
        case CapacityOrder::kRandom:
          return static_cast<double>(c.rank) + (training() ? chance : 0.0);
        default:
          return static_cast<double>(c.rank);
      }
    };
    std::stable_sort(queue.begin(), queue.end(),
                     [&](size_t a, size_t b) { return rank(choices_[a]) < rank(choices_[b]); });
    std::vector<int64_t> taken(kBank, 0);
    for (const size_t i : queue) choices_[i].kept = taken[choices_[i].expert]++ < limit;
    if (!o_.capacity.renormalize_after_drop) return;
    for (int64_t t = 0; t < kUnits; ++t) {
      std::vector<at::Tensor> left;
      for (const auto& c : choices_) {
        if (c.unit == t && c.kept) left.push_back(c.score);
      }
      for (auto& c : choices_) {
        if (c.unit == t && c.kept) c.weight = c.score.div(total(left)).mul(o_.routed_scaling_factor);
      }
    }
  }

  MoeLayer& layer_;
  TopKOptions o_;
  ForwardContext context_;
  std::vector<Choice> choices_;
};

void compare(const std::string& name, const TopKOptions& options, Phase phase, double bias) {
  auto layer = layer_with(make_topk_router(options, shape()));
  fill_zero_weights(*layer);
  layer->router().selection_bias()[4].fill_(bias);
  int64_t dropped = 0, requested = 0;
  PlainPipeline plain(*layer, options, three_documents(phase));
  equal_in_value_and_gradients(
      *layer,
      [&](const at::Tensor& x) {
        auto context = three_documents(phase);
        const auto y = layer->run(x, context);
        const auto& plan = std::get<SparsePlan>(context.traces.at(0).plan.body);
        requested = plan.requested_E.sum().item<int64_t>();
        dropped = requested - plan.kept_E.sum().item<int64_t>();
        return y;
      },
      [&](const at::Tensor& x) { return plain.run(x); }, name);
  const auto& choices = plain.choices();
  EXPECT_EQ(requested, static_cast<int64_t>(choices.size())) << name;
  EXPECT_EQ(dropped, std::count_if(choices.begin(), choices.end(), [](const Choice& c) { return !c.kept; }))
      << name;
  if (options.capacity.factor && phase == Phase::kTrain) {
    EXPECT_GT(dropped, 0) << name << ": nothing overflows, the capacity is not tested";
  }
}

TEST(TopKPipeline, every_stage_equals_the_plain_loop_in_value_and_gradients) {
  for (const auto& [name, options] : topk_variants()) compare(name, options, Phase::kTrain, 0.0);
}

TEST(TopKPipeline, a_selection_bias_acts_like_the_plain_loop_with_every_stage) {
  for (const auto& [name, options] : topk_variants()) compare(name, options, Phase::kTrain, 0.3);
}

TEST(TopKPipeline, evaluation_has_no_jitter_no_noise_no_chance_and_its_own_capacity) {
  for (auto [name, options] : topk_variants()) {
    options.capacity.eval_factor = options.capacity.factor;
    compare(name, options, Phase::kEval, 0.0);
  }
}

TEST(TopKPipeline, scoring_the_selected_equals_renormalising_the_scores) {
  const auto x = normal({kUnits, kModel}, 66);
  auto before = layer_with(make_topk_router({.top_k = 3}, shape()));
  auto after = layer_with(
      make_topk_router({.top_k = 3, .score_before_topk = false, .norm_topk_prob = false}, shape()));
  EXPECT_TRUE(before->forward(x).equal(after->forward(x)));
}

}  // namespace
