// SPDX-License-Identifier: Apache-2.0
// A layer whose experts are spread over ranks equals the layer that has them all, for every gate: value,
// gradient of the input, of the router (a sum over ranks) and of the experts (each at its owner). fp64; the
// ranks are threads.
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "comm/ranks.h"
#include "conclave/core/error.h"
#include "conclave/moe/make.h"
#include "conclave/moe/routers/topk.h"
#include "small_layer.h"

namespace {

using namespace small;

struct SpreadGate {
  std::string name = "";
  RouterEntry entry = {};
  config::AnyOptions options = {};
  bool gather_tokens = false;
  ExpertPlacement placement = ExpertPlacement::kStatic;
  bool padded = false;

  std::shared_ptr<MoeLayer> layer(std::shared_ptr<comm::Communicator> ranks, c10::ScalarType dtype) const {
    auto router_of = shape();
    router_of.dtype = dtype == at::kDouble ? at::kDouble : at::kFloat;
    auto layer = std::make_shared<MoeLayer>(MoeLayerOptions{.width = kModel,
                                                            .num_experts = kBank,
                                                            .expert_width = kHidden,
                                                            .layer = 3,
                                                            .expert_parallel = std::move(ranks),
                                                            .gather_tokens = gather_tokens,
                                                            .placement = placement,
                                                            .pad_to_capacity = padded,
                                                            .dtype = router_of.dtype},
                                            entry.make(options, router_of));
    nn::initialise(*layer, 0.7, 5);
    fill_zero_weights(*layer);
    return layer;
  }
};

std::vector<SpreadGate> spread_gates() {
  static const auto variants = topk_variants();
  std::vector<SpreadGate> all;
  const auto registry = builtin();
  for (const auto& entry : registry.routers.entries()) all.push_back({entry.name, entry, entry.defaults()});
  for (const auto& [name, options] : variants)
    all.push_back({"topk " + name, topk_entry(), config::AnyOptions(options)});
  return all;
}

// Different numbers of tokens on every rank, two documents each; rank 1 of 3 has none.
int64_t tokens_of(int rank, int ranks) {
  return ranks == 3 && rank == 1 ? 0 : 5 + 4 * rank;
}

ForwardContext context_of(int rank, int64_t tokens) {
  auto context = ForwardContext::plain(tokens, Phase::kTrain);
  context.random = {.seed = 17, .step = 4};
  context.step = 4;
  context.tokens.group_of_unit_U = context.tokens.global_id_U.ge(tokens / 2).to(at::kLong);
  context.tokens.sequence_of_unit_U = context.tokens.group_of_unit_U;
  context.tokens.global_id_U = context.tokens.global_id_U.add(1000 * rank);
  context.tokens.num_sequences = 2;
  return context;
}

struct Shard {
  at::Tensor x = {}, y = {};
};

// Runs the tokens of one rank and adds the gradients of a random linear function of them.
Shard run_shard(MoeLayer& layer, int rank, int ranks, c10::ScalarType dtype) {
  const int64_t tokens = tokens_of(rank, ranks);
  Shard shard{.x = normal({tokens, kModel}, 31 + static_cast<uint64_t>(rank)).to(dtype).requires_grad_(true)};
  auto context = context_of(rank, tokens);
  shard.y = layer.run(shard.x, context);
  shard.y.mul(normal({tokens, kModel}, 91 + static_cast<uint64_t>(rank)).to(dtype)).sum().backward();
  return shard;
}

void near(const at::Tensor& got, const at::Tensor& want, double tolerance, const std::string& what) {
  const double scale = std::max(want.to(at::kDouble).norm().item<double>(), 1e-3);
  EXPECT_LE(got.to(at::kDouble).sub(want.to(at::kDouble)).norm().item<double>(), tolerance * scale) << what;
}

void expect_equal_to_one_rank(const SpreadGate& gate, int ranks, c10::ScalarType dtype, double tolerance) {
  const auto whole = gate.layer(nullptr, dtype);
  std::vector<Shard> wanted;
  for (int rank = 0; rank < ranks; ++rank) wanted.push_back(run_shard(*whole, rank, ranks, dtype));
  const auto reference = whole->named_parameters();

  comm::run_ranks(ranks, [&](comm::Communicator& c) {
    const auto layer = gate.layer(comm::borrowed(c), dtype);
    const auto what = [&](const std::string& part) {
      return gate.name + (gate.gather_tokens ? " gathered" : "") + ", rank " + std::to_string(c.rank()) +
             " of " + std::to_string(ranks) + ": " + part;
    };
    const Shard got = run_shard(*layer, c.rank(), ranks, dtype);
    const auto& want = wanted[static_cast<size_t>(c.rank())];
    near(got.y, want.y, tolerance, what("value"));
    near(got.x.grad(), want.x.grad(), tolerance, what("x"));
    for (const auto& p : layer->named_parameters()) {
      auto gradient = p.value().grad().defined() ? p.value().grad().clone() : at::zeros_like(p.value());
      auto of_all = reference[p.key()].grad();
      if (!of_all.defined()) of_all = at::zeros_like(reference[p.key()]);
      if (p.key().rfind("experts.", 0) == 0) {
        const int64_t here = kBank / ranks;
        of_all = gate.placement == ExpertPlacement::kStatic ? of_all.narrow(0, c.rank() * here, here)
                                                            : of_all.slice(0, c.rank(), kBank, ranks);
      } else {
        gradient = gradient.to(at::kDouble);
        c.all_reduce({gradient.mutable_data_ptr(), gradient.numel(), comm::DataType::kFloat64});
      }
      near(gradient, of_all, tolerance, what(p.key()));
    }
  });
}

TEST(ExpertParallel, every_gate_equals_one_rank_in_value_and_gradients) {
  for (auto gate : spread_gates()) {
    for (const bool gathered : {false, true}) {
      gate.gather_tokens = gathered;
      for (const int ranks : {1, 2, 3, 6}) expect_equal_to_one_rank(gate, ranks, at::kDouble, 1e-9);
    }
  }
}

TEST(ExpertParallel, experts_dealt_out_one_by_one_are_the_same_experts) {
  for (auto gate : spread_gates()) {
    gate.placement = ExpertPlacement::kRoundRobin;
    for (const bool gathered : {false, true}) {
      gate.gather_tokens = gathered;
      for (const int ranks : {2, 3}) expect_equal_to_one_rank(gate, ranks, at::kDouble, 1e-9);
    }
  }
}

// Empty rows travel too, and change nothing. Ranks with other numbers of tokens have other capacities.
TEST(ExpertParallel, rows_padded_to_the_capacity_give_the_same) {
  int limited = 0;
  for (auto gate : spread_gates()) {
    gate.padded = true;
    limited += gate.entry.caps(gate.options).drops_in_training ? 1 : 0;
    for (const auto placement : {ExpertPlacement::kStatic, ExpertPlacement::kRoundRobin}) {
      gate.placement = placement;
      for (const int ranks : {1, 2, 3}) expect_equal_to_one_rank(gate, ranks, at::kDouble, 1e-9);
    }
  }
  EXPECT_GE(limited, 4) << "gates with a capacity";
}

TEST(ExpertParallel, an_expert_that_nobody_asked_for_has_empty_rows) {
  const auto expert = at::arange(0, 8, 2, at::kInt);  // of 4 units: 0, 2, 4, 6 of 8
  auto plan = make_sparse_plan(4, 8, at::arange(4, at::kInt), expert, at::zeros({4}, at::kInt),
                               at::arange(1, 5, at::kDouble), {});
  EXPECT_THROW(padded_to_capacity(plan, 8), Error);
  plan.capacity = 3;
  const auto padded = padded_to_capacity(plan, 8);
  EXPECT_EQ(padded.pair_of_row_A.size(0), 24);
  for (int64_t row = 0; row < 24; ++row) {
    const int64_t want = row % 3 == 0 && row / 3 % 2 == 0 ? row / 6 : -1;
    EXPECT_EQ(padded.pair_of_row_A[row].item<int64_t>(), want) << row;
  }
  EXPECT_TRUE(padded.row_of_pair_N.equal(at::tensor({0, 6, 12, 18}, at::kInt)));
  EXPECT_TRUE(padded.kept_E.equal(plan.kept_E));
  auto none = make_sparse_plan(2, 8, at::arange(2, at::kInt), at::full({2}, -1, at::kInt),
                               at::zeros({2}, at::kInt), at::zeros({2}, at::kDouble), {});
  none.capacity = 1;
  EXPECT_TRUE(padded_to_capacity(none, 8).pair_of_row_A.eq(-1).all().item<bool>());
}

TEST(ExpertParallel, fp32_and_bf16_rows_travel_as_they_are) {
  for (const bool gathered : {false, true}) {
    const SpreadGate topk{"topk", topk_entry(), topk_entry().defaults(), gathered};
    expect_equal_to_one_rank(topk, 3, at::kFloat, 2e-5);
    expect_equal_to_one_rank(topk, 3, at::kBFloat16, 2e-2);
  }
}

TEST(ExpertParallel, two_runs_are_bitwise_equal) {
  const SpreadGate topk{"topk", topk_entry(), topk_entry().defaults()};
  const auto run = [&] {
    std::vector<at::Tensor> values(9);
    comm::run_ranks(3, [&](comm::Communicator& c) {
      const auto layer = topk.layer(comm::borrowed(c), at::kFloat);
      const auto shard = run_shard(*layer, c.rank(), 3, at::kFloat);
      const auto first = static_cast<size_t>(3 * c.rank());
      values[first] = shard.y.detach();
      values[first + 1] = shard.x.grad();
      values[first + 2] = layer->named_parameters()["experts.w13"].grad();
    });
    return values;
  };
  const auto a = run(), b = run();
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].equal(b[i])) << i;
}

// The law above can fail: rows that come back in the order of their arrival at the experts belong to other
// tokens.
TEST(ExpertParallel, a_dispatcher_that_forgets_to_reorder_is_caught) {
  class Forgetful : public Dispatcher {
   public:
    explicit Forgetful(std::shared_ptr<comm::Communicator> ranks)
        : real_(make_all_to_all_dispatcher(std::move(ranks))) {}
    std::shared_ptr<DispatchLayout> plan(const SparsePlan& plan) override { return real_->plan(plan); }
    void give_up(int64_t num_experts) override { real_->give_up(num_experts); }
    Dispatched dispatch(const SparsePlan& plan, DispatchLayout& layout, const at::Tensor& x,
                        const at::Tensor& weights) override {
      return real_->dispatch(plan, layout, x, weights);
    }
    at::Tensor combine(const SparsePlan& plan, DispatchLayout& layout, const Dispatched& d,
                       const at::Tensor& y) override {
      auto forgotten = d;
      forgotten.rows.rows_N = at::arange(y.size(0), at::kInt);
      return real_->combine(plan, layout, forgotten, y);
    }

   private:
    std::unique_ptr<Dispatcher> real_;
  };
  const SpreadGate topk{"topk", topk_entry(), topk_entry().defaults()};
  const auto whole = topk.layer(nullptr, at::kDouble);
  comm::run_ranks(2, [&](comm::Communicator& c) {
    const auto layer = topk.layer(comm::borrowed(c), at::kDouble);
    auto context = context_of(c.rank(), 9);
    const auto x = normal({9, kModel}, 7);
    RouterTrace trace{.layer = 3};
    const auto plan = std::get<SparsePlan>(layer->router().route(x, context.tokens, context, trace).body);
    const auto weights = plan.weight_N.index_select(0, plan.pair_of_row_A);
    const auto run = [&](Dispatcher&& dispatcher) {
      const auto layout = dispatcher.plan(plan);
      const auto d = dispatcher.dispatch(plan, *layout, x, weights);
      const auto p = layer->named_parameters();
      return dispatcher.combine(plan, *layout, d,
                                ops::expert_mlp(d.rows, d.weights_A, p["experts.w13"], p["experts.w2"]));
    };
    auto context_again = context_of(c.rank(), 9);
    const auto want = whole->run(x, context_again);
    near(run(std::move(*make_all_to_all_dispatcher(comm::borrowed(c)))), want, 1e-9, "the dispatcher itself");
    EXPECT_GT(run(Forgetful(comm::borrowed(c))).sub(want).norm().item<double>(), 0.01);
  });
}

// Two ranks with two experts each: rank 1 would get more rows than its budget.
TEST(ExpertParallel, a_budget_of_rows_is_an_error_or_drops_what_comes_last_and_says_so) {
  comm::run_ranks(2, [](comm::Communicator& c) {
    const auto options = [&](DispatchLimits limits) {
      return MoeLayerOptions{.width = kModel,
                             .num_experts = 4,
                             .expert_width = kHidden,
                             .expert_parallel = comm::borrowed(c),
                             .limits = limits,
                             .dtype = at::kDouble};
    };
    const auto layer = [&](DispatchLimits limits) {
      return make_moe_layer(
          options(limits), [](const RouterShape& s) { return make_topk_router({.top_k = 2}, s); }, 3, 0.7);
    };
    const auto run = [&](const std::shared_ptr<MoeLayer>& l, Phase phase, at::Tensor* gradient = nullptr) {
      const auto x = normal({8, kModel}, 40 + static_cast<uint64_t>(c.rank())).requires_grad_(true);
      auto context = ForwardContext::plain(8, phase);
      const auto y = l->run(x, context);
      if (gradient) {
        y.sum().backward();
        *gradient = x.grad();
      }
      return std::pair(y.detach(), context.traces.at(0));
    };
    const auto [y, trace] = run(layer({}), Phase::kTrain);
    const int64_t most = trace.most_rank_rows;
    ASSERT_GT(most, 16) << "one of the ranks has more than half of the 32 rows";
    const auto near_enough = run(layer({.rank_budget = most}), Phase::kTrain).first;
    EXPECT_TRUE(near_enough.equal(y)) << "exactly enough";

    for (const auto policy : {OnOverflow::kError, OnOverflow::kRerun}) {
      const auto strict = layer({.rank_budget = most - 1, .on_overflow = policy});
      try {
        run(strict, Phase::kTrain);
        ADD_FAILURE() << "one row too many was taken";
      } catch (const RankOverflow& overflow) {
        EXPECT_EQ(overflow.rows(), most);
        EXPECT_EQ(overflow.kind(), Error::Kind::kMemory);
      }
      EXPECT_TRUE(run(strict, Phase::kEval).first.equal(y)) << "training alone is limited";
      strict->set_rank_budget(most);
      EXPECT_TRUE(run(strict, Phase::kTrain).first.equal(y));
    }

    const auto dropping = layer({.rank_budget = most - 3, .on_overflow = OnOverflow::kDrop});
    at::Tensor gradient;
    const auto [less, dropped] = run(dropping, Phase::kTrain, &gradient);
    EXPECT_EQ(dropped.most_rank_rows, most - 3);
    const auto& before = std::get<SparsePlan>(trace.plan.body);
    const auto& after = std::get<SparsePlan>(dropped.plan.body);
    EXPECT_TRUE(before.requested_E.equal(after.requested_E));
    int64_t lost = (before.kept_E.sum() - after.kept_E.sum()).item<int64_t>();
    EXPECT_EQ(lost, c.rank() == 1 ? 3 : 0) << "those of the last rank";
    EXPECT_TRUE(gradient.isfinite().all().item<bool>());
    // The tokens that lost nothing have the values that they had, and the lost pairs are the last ones.
    int64_t changed = 0, first_changed = 8;
    for (int64_t t = 7; t >= 0; --t) {
      if (less[t].sub(y[t]).abs().max().item<double>() < 1e-12) continue;
      ++changed;
      first_changed = t;
    }
    EXPECT_EQ(changed > 0, c.rank() == 1);
    EXPECT_LE(changed, 3);
    if (c.rank() == 1) {
      EXPECT_GE(first_changed, 4);
    }
  });
}

TEST(ExpertParallel, experts_that_the_ranks_cannot_share_are_refused) {
  comm::run_ranks(4, [](comm::Communicator& c) {
    const SpreadGate topk{"topk", topk_entry(), topk_entry().defaults()};
    EXPECT_THROW(topk.layer(comm::borrowed(c), at::kDouble), Error);
  });
}

}  // namespace
