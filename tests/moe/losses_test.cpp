// SPDX-License-Identifier: Apache-2.0
// Importance, load and load balancing against plain loops in double, values and gradients.
#include <algorithm>
#include <cmath>

#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "conclave/core/error.h"
#include "conclave/moe/losses/losses.h"
#include "small_layer.h"

namespace {

using namespace small;

const StepTotals kOneMicroBatch{.num_tokens = kUnits, .num_micro_batches = 1, .num_sequences = 2};

RouterTrace trace_of(MoeLayer& layer, const at::Tensor& x, ForwardContext context = three_documents()) {
  layer.run(x, context);
  return context.traces.at(0);
}

at::Tensor plain_variation(const std::vector<at::Tensor>& values) {
  auto mean = values[0].mul(0), squares = values[0].mul(0);
  for (const auto& v : values) mean = mean.add(v.div(static_cast<double>(values.size())));
  for (const auto& v : values)
    squares = squares.add(v.sub(mean).pow(2).div(static_cast<double>(values.size())));
  return squares.div(mean.pow(2).add(1e-10));
}

TEST(ImportanceLoss, equals_the_plain_loop_over_selected_weights_or_all_scores) {
  for (const auto of : {ImportanceOf::kWeights, ImportanceOf::kProbs}) {
    auto layer = layer_with(make_topk_router({.top_k = 3, .routed_scaling_factor = 1.3}, shape()));
    const auto loss = importance_entry().make(ImportanceOptions{.importance_of = of});
    equal_in_value_and_gradients(
        *layer, [&](const at::Tensor& x) { return loss->share(trace_of(*layer, x), kOneMicroBatch); },
        [&](const at::Tensor& x) {
          const auto p = at::linear(x, layer->named_parameters()["router.weight"]).softmax(-1);
          std::vector<at::Tensor> importance(kBank, at::zeros({}, at::kDouble));
          for (int64_t t = 0; t < kUnits; ++t) {
            const auto order = p[t].detach().argsort(/*stable=*/true, 0, /*descending=*/true);
            auto sum = p[t][0].mul(0);
            for (int64_t j = 0; j < 3; ++j) sum = sum.add(p[t][order[j].item<int64_t>()]);
            for (int64_t j = 0; j < kBank; ++j) {
              const int64_t e = order[j].item<int64_t>();
              if (of == ImportanceOf::kProbs) importance[e] = importance[e].add(p[t][e]);
              if (of == ImportanceOf::kWeights && j < 3) {
                importance[e] = importance[e].add(p[t][e].div(sum).mul(1.3));
              }
            }
          }
          return plain_variation(importance);
        });
  }
}

TEST(LoadLoss, equals_the_plain_loop_with_gradients_through_threshold_and_deviation) {
  const TopKOptions options{.top_k = 2, .noise = {.type = NoiseType::kLearnedGaussian, .epsilon = 0.02}};
  auto layer = layer_with(make_topk_router(options, shape()));
  fill_zero_weights(*layer);
  const auto loss = load_entry().make(LoadOptions{});
  equal_in_value_and_gradients(
      *layer, [&](const at::Tensor& x) { return loss->share(trace_of(*layer, x), kOneMicroBatch); },
      [&](const at::Tensor& x) {
        const auto p = layer->named_parameters();
        const auto clean = at::linear(x, p["router.weight"]);
        const auto sigma = at::softplus(at::linear(x, p["router.noise_weight"])).add(0.02);
        const auto context = three_documents();
        std::vector<at::Tensor> load(kBank, at::zeros({}, at::kDouble));
        for (int64_t t = 0; t < kUnits; ++t) {
          std::vector<at::Tensor> noisy;
          for (int64_t e = 0; e < kBank; ++e) {
            const auto id = static_cast<uint64_t>(context.tokens.global_id_U[t].item<int64_t>());
            const double draw = context.random.normal(RandomStream::kRouterNoise, 3, id, e);
            noisy.push_back(clean[t][e].add(sigma[t][e].mul(draw)));
          }
          for (int64_t e = 0; e < kBank; ++e) {
            auto others = noisy;
            others.erase(others.begin() + e);
            std::sort(others.begin(), others.end(), [](const at::Tensor& a, const at::Tensor& b) {
              return a.item<double>() > b.item<double>();
            });
            const auto z = clean[t][e].sub(others[1]).div(sigma[t][e]);
            load[e] = load[e].add(z.div(std::sqrt(2.0)).erf().add(1).div(2));
          }
        }
        return plain_variation(load);
      });
}

TEST(LoadLoss, is_the_only_path_to_experts_that_were_not_selected) {
  const TopKOptions options{.top_k = 2, .noise = {.type = NoiseType::kGaussian, .std = 0.5}};
  auto layer = layer_with(make_topk_router(options, shape()));
  const auto x = normal({1, kModel}, 61).requires_grad_(true);
  const auto untouched = [&](const AuxLoss& loss) {
    const auto trace = trace_of(*layer, x, ForwardContext::plain(1));
    const auto all = gradients(*layer, x, loss.share(trace, kOneMicroBatch));
    return all.at("router.weight").abs().sum(1).eq(0).sum().item<int64_t>();
  };
  EXPECT_EQ(untouched(*importance_entry().make(ImportanceOptions{})), kBank - 2);
  EXPECT_EQ(untouched(*load_entry().make(LoadOptions{})), 0);
}

TEST(LoadLoss, without_noise_says_what_it_needs) {
  auto layer = layer_with(make_topk_router({}, shape()));
  const auto x = normal({kUnits, kModel}, 62);
  EXPECT_THROW(load_entry().make(LoadOptions{})->share(trace_of(*layer, x), kOneMicroBatch), Error);
}

TEST(LoadLoss, beside_a_selection_bias_it_is_refused) {
  auto router = make_topk_router({.top_k = 2, .noise = {.type = NoiseType::kGaussian, .std = 0.5}}, shape());
  router->selection_bias().select(0, 1).fill_(0.1);
  auto layer = layer_with(router);
  const auto trace = trace_of(*layer, normal({kUnits, kModel}, 62));
  EXPECT_THROW(load_entry().make(LoadOptions{})->share(trace, kOneMicroBatch), Error);
}

// E sum f P token by token; f from `requests` of each token.
at::Tensor plain_balance(const at::Tensor& p, int64_t begin, int64_t end,
                         const std::vector<std::vector<int64_t>>& requests) {
  std::vector<double> f(kBank, 0.0);
  double n = 0;
  auto mean = p[0].mul(0);
  for (int64_t t = begin; t < end; ++t) {
    mean = mean.add(p[t].div(p[t].sum()).div(static_cast<double>(end - begin)));
    for (const int64_t e : requests[static_cast<size_t>(t)]) {
      f[static_cast<size_t>(e)] += 1;
      n += 1;
    }
  }
  return mean.mul(at::tensor(f, at::kDouble).div(n)).sum().mul(static_cast<double>(kBank));
}

TEST(LoadBalancing, choices_counts_and_scopes_equal_the_plain_loop) {
  const TopKOptions options{.top_k = 3, .score_function = ScoreFunction::kSigmoid};
  auto layer = layer_with(make_topk_router(options, shape()));
  layer->router().selection_bias()[2].fill_(5.0);  // always selected, by no merit of its score
  const auto totals = kOneMicroBatch;
  for (const auto scope : {BalanceScope::kMicroBatch, BalanceScope::kSequence, BalanceScope::kGlobalBatch}) {
    for (const auto choices : {BalanceChoices::kAll, BalanceChoices::kFirst}) {
      for (const auto counts : {BalanceCounts::kRequested, BalanceCounts::kScoresTopK}) {
        const auto loss = load_balancing_entry().make(
            LoadBalancingOptions{.scope = scope, .choices = choices, .counts = counts});
        equal_in_value_and_gradients(
            *layer,
            [&](const at::Tensor& x) {
              const auto trace = trace_of(*layer, x);
              auto with_counts = totals;
              if (loss->needs_exact_global_counts()) with_counts.step_counts = loss->count(trace);
              return loss->share(trace, with_counts);
            },
            [&](const at::Tensor& x) {
              const auto p = at::linear(x, layer->named_parameters()["router.weight"]).sigmoid();
              std::vector<std::vector<int64_t>> requests(kUnits);
              for (int64_t t = 0; t < kUnits; ++t) {
                auto value = p[t].detach().clone();
                if (counts == BalanceCounts::kRequested) value[2].add_(5.0);
                const auto order = value.argsort(/*stable=*/true, 0, /*descending=*/true);
                for (int64_t j = 0; j < (choices == BalanceChoices::kFirst ? 1 : 3); ++j) {
                  requests[static_cast<size_t>(t)].push_back(order[j].item<int64_t>());
                }
              }
              if (scope != BalanceScope::kSequence) return plain_balance(p, 0, kUnits, requests);
              return plain_balance(p, 0, 8, requests).add(plain_balance(p, 8, kUnits, requests)).div(2);
            });
      }
    }
  }
}

// Parts of 10, 20, 5 and 15 tokens: the parts' shares with the counts of the whole sum to the loss of the
// whole; the mean of the parts' own losses, the broken double, does not.
TEST(LoadBalancing, shares_of_the_global_batch_sum_to_the_loss_of_the_whole) {
  auto layer = layer_with(make_topk_router({.top_k = 3}, shape()));
  const auto x = normal({50, kModel}, 63).requires_grad_(true);
  const auto part = [&](int64_t begin, int64_t size) {
    return trace_of(*layer, x.narrow(0, begin, size), ForwardContext::plain(size));
  };
  const auto loss = load_balancing_entry().make(LoadBalancingOptions{.scope = BalanceScope::kGlobalBatch});
  StepTotals totals{.num_tokens = 50, .num_micro_batches = 4};
  const auto whole = part(0, 50);
  totals.step_counts = loss->count(whole);
  const auto want = loss->share(whole, totals);
  const auto want_gradient = gradients(*layer, x, want).at("router.weight");

  const auto local = load_balancing_entry().make(LoadBalancingOptions{});
  const std::vector<std::pair<int64_t, int64_t>> parts = {{0, 10}, {10, 20}, {30, 5}, {35, 15}};
  auto counts = at::zeros({kBank}, at::kLong);
  for (const auto& [begin, size] : parts) counts = counts.add(loss->count(part(begin, size)));
  EXPECT_TRUE(counts.equal(totals.step_counts));
  auto got = at::zeros({}, at::kDouble), broken = at::zeros({}, at::kDouble);
  for (const auto& [begin, size] : parts) {
    const auto trace = part(begin, size);
    got = got.add(loss->share(trace, totals));
    broken = broken.add(local->share(trace, totals));
  }
  close_to(got, want, "sum of shares");
  close_to(gradients(*layer, x, got).at("router.weight"), want_gradient, "gradient");
  EXPECT_GT(std::abs(broken.item<double>() - want.item<double>()), 1e-4);
}

TEST(LoadBalancing, the_gradient_is_the_closed_form_of_switch) {
  auto layer = layer_with(make_topk_router({.top_k = 1, .norm_topk_prob = false}, shape()));
  const auto x = normal({kUnits, kModel}, 64).requires_grad_(true);
  const auto trace = trace_of(*layer, x);
  const auto share = load_balancing_entry().make(LoadBalancingOptions{})->share(trace, kOneMicroBatch);
  const auto got = gradients(*layer, x, share).at("router.weight");
  const auto p = trace.probs_UE.detach();
  const auto f = std::get<SparsePlan>(trace.plan.body).requested_E.to(at::kDouble).div(kUnits);
  const auto dz = p.mul(f.sub(p.mul(f).sum(-1, true))).mul(static_cast<double>(kBank) / kUnits);
  close_to(got, dz.t().matmul(x.detach()), "E / T p (f - sum f p)");
}

}  // namespace
