// SPDX-License-Identifier: Apache-2.0
// One small example with known numbers: an MoE layer behind a dense one, four samples of unequal length, and
// layouts of one to four ranks, all in fp64. Every layout gives the numbers of one rank, and each usual
// mistake the wrong ones that are known for it. The program prints the table.
#include <cmath>
#include <map>
#include <mutex>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "conclave/moe/make.h"
#include "conclave/moe/routers/topk.h"
#include "conclave/ops/collectives.h"
#include "conclave/optim/gradients.h"

namespace {

using namespace conclave;

constexpr int kSamples = 4, kTokens = 4, kWidth = 3, kInner = 4, kExperts = 2;
constexpr int kReal[kSamples] = {4, 3, 1, 2};  // tokens that are no padding
constexpr double kBalanceWeight = 0.5, kZWeight = 0.1;

at::Tensor pattern(int rows, int columns, int offset) {
  auto w = at::empty({rows, columns}, at::kDouble);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) w[i][j] = ((3 * i + 5 * j + offset) % 7 - 3) / 8.0;
  }
  return w;
}

at::Tensor input(int sample) {
  auto x = at::empty({kTokens, kWidth}, at::kDouble);
  for (int i = 0; i < kTokens; ++i) {
    for (int j = 0; j < kWidth; ++j) x[i][j] = ((7 * sample + 3 * i + 2 * j) % 11 - 5) / 4.0;
  }
  return x;
}

// Targets: all of sample 0, tokens 0 and 2 of sample 1, token 0 of sample 2.
bool has_target(int sample, int token) {
  return sample == 0 || (sample == 1 && token % 2 == 0 && token < 3) || (sample == 2 && token == 0);
}
double target(int sample, int token) {
  return ((3 * sample + 5 * token) % 5 - 2) / 2.0;
}

// The usual mistakes.
enum class Mistake {
  kNone,
  kMeanOfMeans,           // of the micro-batches' mean losses
  kAuxDividedAgain,       // by ranks * accumulation
  kPaddingInBalance,      // counted and scored like tokens
  kRecomputeCountsTwice,  // the balancing term
  kExpertsDivided,        // gradients by the number of copies
  kNormOfOwnExperts,      // each rank clips by what it has
  kNormCountsCopies,      // every copy of an expert
  kNormCountsRanks,       // everything else once per rank
};

const char* name_of(Mistake mistake) {
  constexpr const char* kNames[] = {"right",         "mean of means",    "aux divided again",
                                    "padding in LB", "recompute counts", "experts divided",
                                    "own experts",   "copies counted",   "ranks counted"};
  return kNames[static_cast<size_t>(mistake)];
}

struct Layout {
  const char* name;
  int ranks, expert_parallel;
};
constexpr Layout kA{"A", 1, 1}, kB{"B", 2, 2}, kC{"C", 2, 1}, kG{"G", 4, 2}, kH{"H", 4, 1};

struct Outcome {
  double task = 0, balance = 0, z = 0;
  std::vector<double> norms = {};                    // by rank
  std::map<std::string, at::Tensor> gradients = {};  // w1.0: of expert 0

  // Sum, sum of squares and first element.
  std::vector<double> summary(const std::string& name) const {
    const auto& g = gradients.at(name);
    return {g.sum().item<double>(), g.square().sum().item<double>(), g.flatten()[0].item<double>()};
  }
};

moe::ForwardContext context_of(int sample, bool padding_counts) {
  moe::ForwardContext context;
  const int64_t units = padding_counts ? kTokens : kReal[sample];
  context.tokens = moe::ForwardContext::plain(units).tokens;
  context.tokens.num_rows = kTokens;
  if (units < kTokens) context.tokens.row_of_unit_U = at::arange(units, at::kLong);
  return context;
}

class Rank {
 public:
  Rank(comm::Communicator& world, const Layout& layout, moe::BalanceScope scope, Mistake mistake)
      : mistake_(mistake),
        accumulation_(kSamples / layout.ranks),
        ranks_(comm::make_groups(comm::borrowed(world), {.expert = layout.expert_parallel})) {
    layer_ = moe::make_moe_layer(
        {.width = kWidth,
         .num_experts = kExperts,
         .expert_width = kInner,
         .expert_parallel = layout.expert_parallel > 1 ? ranks_.expert : nullptr,
         .dtype = at::kDouble},
        [](const auto& shape) { return moe::make_topk_router({.top_k = 1, .norm_topk_prob = false}, shape); },
        1);
    balance_ = moe::make_load_balancing_loss({.weight = kBalanceWeight, .scope = scope});
    z_ = moe::make_z_loss({.weight = kZWeight});
    add("s", at::tensor({1.0, 0.75, 1.25}, at::kDouble));
    add("Wi", pattern(2, kWidth, 1));
    add("Wo", pattern(kWidth, 2, 2));
    add("u", at::tensor({0.5, -0.75, 1.0}, at::kDouble));
    for (auto& p : nn::tagged_parameters(*layer_)) {
      if (p.name == "router.weight") p.name = "Wr";
      parameters_.push_back(p);
    }
    const c10::NoGradGuard no_grad;
    of("Wr").copy_(pattern(kExperts, kWidth, 4));
    for (int64_t i = 0; i < of("experts.w13").size(0); ++i) {
      const int e = first_expert() + static_cast<int>(i);
      of("experts.w13")[i].copy_(at::cat({pattern(kInner, kWidth, 1 + e), pattern(kInner, kWidth, 3 + e)}));
      of("experts.w2")[i].copy_(pattern(kWidth, kInner, 5 + e));
    }
  }

  // The step; what all ranks agree on, and this rank's gradients.
  Outcome step() {
    const int rank = ranks_.world->rank(), size = ranks_.world->size();
    const bool padding = mistake_ == Mistake::kPaddingInBalance;
    moe::StepTotals totals{.num_tokens = padding ? kSamples * kTokens : 10,
                           .num_targets = 7,
                           .num_micro_batches = kSamples,
                           .num_sequences = kSamples,
                           .step_counts = at::zeros({kExperts}, at::kLong)};
    if (balance_->needs_exact_global_counts()) {
      const c10::NoGradGuard no_grad;
      for (int a = 0; a < accumulation_; ++a) {
        auto context = context_of(a * size + rank, padding);
        layer_->run(before_layer(a * size + rank), context);
        totals.step_counts = totals.step_counts.add(balance_->count(context.traces.at(0)));
      }
      totals.step_counts = ops::sum_over_ranks(totals.step_counts, *ranks_.world);
    }
    Outcome mine;
    for (int a = 0; a < accumulation_; ++a) micro_batch(a * size + rank, totals, mine);
    if (mistake_ == Mistake::kExpertsDivided) {
      for (const char* name : {"experts.w13", "experts.w2"})
        of(name).mutable_grad().div_(ranks_.expert_data->size());
    }
    optim::Gradients gradients(parameters_, ranks_);
    gradients.sum_over_ranks();
    double sums[] = {mine.task, mine.balance, mine.z};
    ranks_.world->all_reduce({sums, 3, comm::DataType::kFloat64});
    mine.task = sums[0], mine.balance = sums[1], mine.z = sums[2];
    mine.norms = {norm(gradients)};
    for (const auto& p : parameters_) {
      if (p.tag.reduce_group == nn::ReduceGroup::kData) mine.gradients[p.name] = p.tensor.grad();
    }
    const auto w13 = of("experts.w13").grad(), w2 = of("experts.w2").grad();
    for (int64_t i = 0; i < w13.size(0); ++i) {
      const int64_t e = first_expert() + i;
      mine.gradients[fmt::format("W1.{}", e)] = w13[i].narrow(0, 0, kInner);
      mine.gradients[fmt::format("W3.{}", e)] = w13[i].narrow(0, kInner, kInner);
      mine.gradients[fmt::format("W2.{}", e)] = w2[i];
    }
    return mine;
  }

 private:
  void add(const char* name, const at::Tensor& value) {
    parameters_.push_back({name, value.clone().requires_grad_(true), {}});
  }
  at::Tensor of(const std::string& name) const {
    for (const auto& p : parameters_) {
      if (p.name == name) return p.tensor;
    }
    throw Error("no parameter " + name);
  }
  int first_expert() const { return static_cast<int>(parameters_.back().tag.first_expert); }
  at::Tensor before_layer(int sample) const {
    const auto scaled = input(sample).mul(of("s"));
    return scaled.add(scaled.matmul(of("Wi").t()).matmul(of("Wo").t()));
  }

  void micro_batch(int sample, const moe::StepTotals& totals, Outcome& sums) {
    auto context = context_of(sample, false);
    const auto hidden = before_layer(sample);
    const auto predicted = hidden.add(layer_->run(hidden, context)).matmul(of("u"));
    auto loss = at::zeros({}, at::kDouble);
    int targets = 0;
    for (int i = 0; i < kTokens; ++i) {
      // A rank without targets runs backward too: the others wait for its part of the exchange.
      const int counts = has_target(sample, i) ? 1 : 0;
      loss = loss.add(predicted[i].sub(target(sample, i)).square().mul(0.5 * counts));
      targets += counts;
    }
    const double divisor =
        mistake_ == Mistake::kMeanOfMeans ? std::max(targets, 1) * kSamples : totals.num_targets;
    const auto task = loss.div(divisor);
    auto trace = context.traces.at(0);
    if (mistake_ == Mistake::kPaddingInBalance) {
      auto padded = context_of(sample, true);
      layer_->run(hidden, padded);
      trace = padded.traces.at(0);
    }
    auto balance = balance_->share(trace, totals), z = z_->share(context.traces.at(0), totals);
    if (mistake_ == Mistake::kRecomputeCountsTwice) balance = balance.mul(2);
    if (mistake_ == Mistake::kAuxDividedAgain) balance = balance.div(kSamples), z = z.div(kSamples);
    task.add(balance, kBalanceWeight).add(z, kZWeight).backward();
    sums.task += task.item<double>();
    sums.balance += balance.item<double>();
    sums.z += z.item<double>();
  }

  double norm(const optim::Gradients& right) const {
    double dense = 0, experts = 0;  // squares on this rank
    for (const auto& p : parameters_) {
      const double squares = p.tensor.grad().square().sum().item<double>();
      (p.tag.reduce_group == nn::ReduceGroup::kData ? dense : experts) += squares;
    }
    const auto over_all_ranks = [&](double value) {
      ranks_.world->all_reduce({&value, 1, comm::DataType::kFloat64});
      return value;
    };
    switch (mistake_) {
      case Mistake::kNormOfOwnExperts:
        return std::sqrt(dense + experts);
      case Mistake::kNormCountsCopies:
        return std::sqrt(dense + over_all_ranks(experts));
      case Mistake::kNormCountsRanks:
        return std::sqrt(over_all_ranks(dense + experts));
      default:
        return right.norm();
    }
  }

  Mistake mistake_;
  int accumulation_;
  comm::RankGroups ranks_;
  std::shared_ptr<moe::MoeLayer> layer_;
  std::unique_ptr<moe::AuxLoss> balance_, z_;
  std::vector<nn::TaggedParameter> parameters_;  // the experts last
};

Outcome run(const Layout& layout, moe::BalanceScope scope = moe::BalanceScope::kGlobalBatch,
            Mistake mistake = Mistake::kNone) {
  Outcome all;
  std::map<int, double> norms;
  std::mutex mutex;
  comm::run_ranks(layout.ranks, [&](comm::Communicator& world) {
    const auto mine = Rank(world, layout, scope, mistake).step();
    const std::lock_guard lock(mutex);
    all.task = mine.task, all.balance = mine.balance, all.z = mine.z;
    norms[world.rank()] = mine.norms[0];
    for (const auto& [name, gradient] : mine.gradients) all.gradients[name] = gradient;
  });
  for (const auto& [rank, norm] : norms) all.norms.push_back(norm);
  fmt::print("{} LB {:12} {:17} task {:.12f}  LB {:.12f}  z {:.12f}  norm {:.12f}  u {:+.12f}  Wr {:+.12f}\n",
             layout.name, scope == moe::BalanceScope::kGlobalBatch ? "global_batch" : "micro_batch",
             name_of(mistake), all.task, all.balance, all.z, all.norms[0], all.summary("u")[2],
             all.summary("Wr")[2]);
  return all;
}

void expect_near(double value, double expected, const std::string& what) {
  // The numbers are given to twelve decimals.
  EXPECT_NEAR(value, expected, std::max(1e-9 * std::abs(expected), 1e-12)) << what;
}

using Summaries = std::map<std::string, std::vector<double>>;

const Summaries& gradients_of_both_scopes() {
  static const Summaries values = {
      {"u", {0.506438498376, 6.961700437058e-1, 0.105457084331}},
      {"W1.0", {-0.002544702207, 8.649690354492e-3, 0.009986809170}},
      {"W1.1", {-0.095241582274, 2.192408995636e-3, -0.007267694914}},
      {"W3.0", {-0.005590253269, 5.548990411279e-3, -0.016649949086}},
      {"W3.1", {-0.063177439228, 7.506551321882e-4, -0.004886464283}},
      {"W2.0", {0.008137514291, 9.048492833349e-4, -0.000472991266}},
      {"W2.1", {0.003440786596, 2.436452792491e-4, -0.001331271120}},
  };
  return values;
}

void expect_right(const Outcome& outcome, double balance, double norm, const Summaries& of_scope) {
  expect_near(outcome.task, 1.041406122839, "task");
  expect_near(outcome.balance, balance, "load balancing");
  expect_near(outcome.z, 0.546880361072, "z");
  for (const double of_rank : outcome.norms) expect_near(of_rank, norm, "norm");
  for (const auto* part : {&gradients_of_both_scopes(), &of_scope}) {
    for (const auto& [name, values] : *part) {
      const auto found = outcome.summary(name);
      for (size_t i = 0; i < values.size(); ++i)
        expect_near(found[i], values[i], fmt::format("{} {}", name, i));
    }
  }
}

class GoldenExample : public ::testing::TestWithParam<Layout> {};

TEST_P(GoldenExample, balance_over_the_global_batch) {
  expect_right(run(GetParam()), 0.990862298713, 1.279002232052,
               {{"s", {1.048148717384, 5.496326184319e-1, 0.007476508199}},
                {"Wi", {-0.170445395238, 2.384966370420e-1, -0.001766008313}},
                {"Wo", {-0.215566658796, 1.313670281363e-1, -0.001592011478}},
                {"Wr", {-0.051213746644, 1.890142821217e-3, 0.017817653087}}});
}

TEST_P(GoldenExample, balance_over_the_micro_batch) {
  expect_right(run(GetParam(), moe::BalanceScope::kMicroBatch), 1.065841990349, 1.290306483798,
               {{"s", {1.080168616798, 5.656149761663e-1, 0.026249188046}},
                {"Wi", {-0.162121744262, 2.424736435161e-1, -0.004238130762}},
                {"Wo", {-0.217855792500, 1.297951071084e-1, -0.010618874658}},
                {"Wr", {-0.051213746644, 1.254681217938e-2, 0.049424480125}}});
}

INSTANTIATE_TEST_SUITE_P(layouts, GoldenExample, ::testing::Values(kA, kB, kC, kG, kH),
                         [](const auto& info) { return info.param.name; });

Outcome wrong(const Layout& layout, Mistake mistake) {
  return run(layout, moe::BalanceScope::kGlobalBatch, mistake);
}

TEST(GoldenMistakes, expert_grad_scale) {
  const auto outcome = wrong(kC, Mistake::kExpertsDivided);
  expect_near(outcome.norms[0], 1.273628293499, "norm");
  for (const auto& [name, values] : gradients_of_both_scopes()) {
    if (name != "u") expect_near(outcome.summary(name)[0], values[0] / 2, name);
  }
}

TEST(GoldenMistakes, mean_of_means) {
  const auto outcome = wrong(kB, Mistake::kMeanOfMeans);
  expect_near(outcome.task, 0.676988725472, "task");
  expect_near(outcome.norms[0], 0.995895265612, "norm");
  expect_near(outcome.summary("u")[2], -0.025947295823, "u");
}

TEST(GoldenMistakes, auxiliary_losses_divided_again) {
  const auto outcome = wrong(kB, Mistake::kAuxDividedAgain);
  expect_near(outcome.summary("Wr")[2], 0.005962733387, "Wr");
  expect_near(outcome.norms[0], 1.276601311895, "norm");
}

TEST(GoldenMistakes, norm_of_the_experts_of_one_rank) {
  const auto outcome = wrong(kB, Mistake::kNormOfOwnExperts);
  expect_near(outcome.norms[0], 1.277755845295, "rank 0");
  expect_near(outcome.norms[1], 1.273084121158, "rank 1");
}

TEST(GoldenMistakes, norm_that_counts_copies_of_experts) {
  expect_near(wrong(kC, Mistake::kNormCountsCopies).norms[0], 1.286132555007, "norm");
}

TEST(GoldenMistakes, norm_that_counts_everything_else_once_per_rank) {
  expect_near(wrong(kB, Mistake::kNormCountsRanks).norms[0], 1.803719263004, "norm");
}

TEST(GoldenMistakes, padding_in_the_balance) {
  expect_near(wrong(kB, Mistake::kPaddingInBalance).balance, 0.996065034930, "load balancing");
}

TEST(GoldenMistakes, counts_doubled_by_recompute) {
  expect_near(wrong(kB, Mistake::kRecomputeCountsTwice).balance, 1.981724597426, "load balancing");
}

}  // namespace
