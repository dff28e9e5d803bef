// SPDX-License-Identifier: Apache-2.0
// Laws over every registered router and loss, and over every stage of the top-k pipeline.
#include <algorithm>
#include <limits>

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include "conclave/moe/routers/group_gates.h"
#include "small_layer.h"

namespace {

using namespace small;

struct Gate {
  std::string name = "";
  RouterEntry entry = {};
  config::AnyOptions options = {};
  const TopKOptions* topk = nullptr;
  Caps caps() const { return entry.caps(options); }
  std::shared_ptr<MoeLayer> layer() const {
    auto layer = layer_with(entry.make(options, shape()));
    fill_zero_weights(*layer);
    return layer;
  }
};

// Every registered router with its defaults, and topk with every stage on.
std::vector<Gate> gates() {
  static const auto variants = topk_variants();
  std::vector<Gate> all;
  const auto registry = builtin();
  for (const auto& entry : registry.routers.entries()) all.push_back({entry.name, entry, entry.defaults()});
  for (const auto& [name, options] : variants) {
    all.push_back({"topk " + name, topk_entry(), config::AnyOptions(options), &options});
  }
  return all;
}

at::Tensor random_rows(int64_t rows = kUnits, uint64_t seed = 41) {
  return normal({rows, kModel}, seed);
}

TEST(Law, two_runs_are_bitwise_equal_in_value_and_gradients) {
  for (const auto& gate : gates()) {
    auto layer = gate.layer();
    const auto x = random_rows().requires_grad_(true);
    const auto run = [&] {
      auto context = three_documents();
      const auto y = layer->run(x, context);
      auto all = gradients(*layer, x, y.square().sum());
      all["y"] = y.detach();
      return all;
    };
    const auto first = run(), second = run();
    for (const auto& [name, value] : first)
      EXPECT_TRUE(value.equal(second.at(name))) << gate.name << " " << name;
  }
}

TEST(Law, every_parameter_gets_a_finite_gradient_and_padding_is_never_routed) {
  for (const auto& gate : gates()) {
    auto layer = gate.layer();
    auto context = three_documents();
    context.tokens.num_rows = kUnits + 2;
    context.tokens.row_of_unit_U = at::arange(1, kUnits + 1, at::kLong);
    auto x = random_rows(kUnits + 2);
    x[0].fill_(std::numeric_limits<double>::quiet_NaN());  // padding may hold anything
    const auto y = layer->run(x, context);
    EXPECT_EQ(y[0].abs().max().item<double>(), 0.0) << gate.name;
    EXPECT_EQ(y[kUnits + 1].abs().max().item<double>(), 0.0) << gate.name;
    if (const auto* plan = std::get_if<SparsePlan>(&context.traces.at(0).plan.body)) {
      EXPECT_LT(plan->unit_N.max().item<int32_t>(), kUnits) << gate.name;
    }
    y.square().sum().backward();
    for (const auto& p : layer->named_parameters()) {
      ASSERT_TRUE(p.value().grad().defined()) << gate.name << " " << p.key();
      EXPECT_TRUE(p.value().grad().isfinite().all().item<bool>()) << gate.name << " " << p.key();
      EXPECT_GT(p.value().grad().abs().max().item<double>(), 0.0) << gate.name << " " << p.key();
    }
  }
}

// A router that says it is causal, or that sequences do not meet in it, is.
TEST(Law, promised_causality_and_batch_independence_hold) {
  for (const auto& gate : gates()) {
    const auto caps = gate.caps();
    auto layer = gate.layer();
    const bool limited = gate.topk && gate.topk->capacity.factor;
    const auto x = random_rows();
    const auto changed_from = [&](int64_t row) {
      auto other = x.clone();
      other.narrow(0, row, kUnits - row).add_(random_rows(kUnits - row, 42), 3.0);
      auto a = three_documents(), b = three_documents();
      return layer->run(x, a).sub(layer->run(other, b)).narrow(0, 0, row).abs().max().item<double>();
    };
    const double future = changed_from(5);  // inside the second document
    // In order of position a second choice queues behind later first choices: causal by the field's custom.
    if (caps.causal && !limited) {
      EXPECT_LE(future, 1e-9) << gate.name;
    } else if (!caps.causal && !limited) {
      EXPECT_GT(future, 1e-6) << gate.name << ": the test has no teeth";
    }
    if (caps.batch_independent) {
      EXPECT_LE(changed_from(8), 1e-9) << gate.name;  // the third document
    }
  }
}

TEST(Law, what_a_router_promises_to_record_and_to_choose_is_in_its_trace) {
  for (const auto& gate : gates()) {
    const auto caps = gate.caps();
    auto context = three_documents();
    gate.layer()->run(random_rows(), context);
    const auto& trace = context.traces.at(0);
    const auto* plan = std::get_if<SparsePlan>(&trace.plan.body);
    for (const auto& record : caps.records) {
      const bool there = record == "logits"  ? trace.logits_UE.defined()
                         : record == "probs" ? trace.probs_UE.defined()
                         : record == "pairs" ? plan != nullptr
                         : record == "ranks" ? plan && trace.num_choices > 0
                                             : trace.tensors.count(record) > 0;
      EXPECT_TRUE(there) << gate.name << " " << record;
    }
    EXPECT_EQ(trace.num_choices, caps.max_choices) << gate.name;
    if (caps.max_choices > 0) {
      EXPECT_LT(plan->choice_N.max().item<int32_t>(), caps.max_choices) << gate.name;
      EXPECT_LE(plan->requested_E.sum().item<int64_t>(), caps.max_choices * kUnits) << gate.name;
    }
    EXPECT_EQ(gate.entry.make(gate.options, shape())->selection_bias().defined(), caps.selection_bias);
  }
}

// Random numbers belong to the token's global id, not to its place: tokens that change places inside their
// document take their outputs along. A limit in order of position is about places.
TEST(Law, tokens_that_change_places_take_their_outputs_along) {
  const auto order = at::tensor({2, 0, 1, 7, 4, 3, 6, 5, 9, 10, 8}, at::kLong);
  for (const auto& gate : gates()) {
    if (gate.topk && gate.topk->capacity.factor && gate.topk->capacity.order == CapacityOrder::kPosition)
      continue;
    auto layer = gate.layer();
    const auto x = random_rows();
    auto a = three_documents(), b = three_documents();
    b.tokens.global_id_U = a.tokens.global_id_U.index_select(0, order);
    const auto here = layer->run(x, a).index_select(0, order),
               there = layer->run(x.index_select(0, order), b);
    close_to(there, here, gate.name);
  }
}

// All scores equal: the lowest experts are chosen (the lowest groups first), the lowest tokens by an expert.
TEST(Law, ties_go_to_the_lowest_index) {
  for (const auto& gate : gates()) {
    if (gate.topk && gate.topk->noise.type != NoiseType::kNone) continue;
    if (!gate.topk && gate.name != "topk" && gate.name != "expert_choice") continue;  // soft ones choose none
    auto context = three_documents();
    gate.layer()->run(at::zeros({kUnits, kModel}, at::kDouble), context);
    const auto& plan = std::get<SparsePlan>(context.traces.at(0).plan.body);
    const auto* expert = plan.expert_N.const_data_ptr<int32_t>();
    const auto* unit = plan.unit_N.const_data_ptr<int32_t>();
    const auto* choice = plan.choice_N.const_data_ptr<int32_t>();
    for (int64_t n = 0; n < plan.expert_N.numel(); ++n) {
      if (gate.name == "expert_choice") {
        EXPECT_LT(unit[n], 4) << "ceil(11 * 2 / 6) tokens an expert";
      } else if (expert[n] >= 0) {  // a second expert may be left out by chance
        EXPECT_EQ(expert[n], choice[n]) << gate.name;
      }
    }
  }
}

TEST(Law, a_score_that_is_no_number_never_wins_and_spoils_nobody_else) {
  auto masking = gates();
  for (auto& gate : masking) {
    if (gate.entry.name == "topk") {
      auto options = gate.options.as<TopKOptions>();
      options.on_nonfinite = NonFinitePolicy::kMask;
      gate.options = config::AnyOptions(options);
    } else if (gate.entry.name == "expert_choice") {
      gate.options = config::AnyOptions(ExpertChoiceOptions{.on_nonfinite = NonFinitePolicy::kMask});
    } else {
      continue;  // has no comparison to win
    }
    auto layer = gate.layer();
    {
      const c10::NoGradGuard no_grad;
      layer->named_parameters()["router.weight"][4][1].fill_(std::numeric_limits<double>::quiet_NaN());
    }
    auto context = three_documents();
    const auto y = layer->run(random_rows(), context);
    const auto& plan = std::get<SparsePlan>(context.traces.at(0).plan.body);
    EXPECT_EQ(plan.requested_E[4].item<int64_t>(), 0) << gate.name;
    EXPECT_GT(plan.requested_E.sum().item<int64_t>(), 0) << gate.name;
    EXPECT_TRUE(y.isfinite().all().item<bool>()) << gate.name;
    y.sum().backward();
    EXPECT_TRUE(layer->named_parameters()["experts.w13"].grad().isfinite().all().item<bool>()) << gate.name;
  }
}

// Losses with every gate that records what they read.
template <class Check>
void for_every_loss(Check check) {
  const auto registry = builtin();
  for (const auto& entry : registry.aux_losses.entries()) {
    int64_t pairs = 0;
    for (const auto& gate : gates()) {
      const auto records = gate.caps().records;
      const auto needs = entry.traits(entry.defaults()).records;
      const bool fits = std::all_of(needs.begin(), needs.end(), [&](const std::string& record) {
        return std::find(records.begin(), records.end(), record) != records.end();
      });
      if (!fits) continue;
      check(gate, *entry.make(entry.defaults()), entry.name + " with " + gate.name);
      ++pairs;
    }
    EXPECT_GT(pairs, 0) << entry.name << " fits no gate";
  }
}

TEST(Law, every_loss_is_finite_repeatable_and_trains_the_router) {
  for_every_loss([](const Gate& gate, const AuxLoss& loss, const std::string& what) {
    auto layer = gate.layer();
    const auto x = random_rows().requires_grad_(true);
    const auto run = [&] {
      auto context = three_documents();
      layer->run(x, context);
      const auto share = loss.share(context.traces.at(0), {.num_tokens = kUnits, .num_sequences = 2});
      EXPECT_EQ(share.dim(), 0) << what;
      EXPECT_TRUE(share.isfinite().item<bool>()) << what;
      return gradients(*layer, x, share);
    };
    const auto first = run(), second = run();
    double largest = 0;
    for (const auto& [name, gradient] : first) {
      EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << what << " " << name;
      EXPECT_TRUE(gradient.equal(second.at(name))) << what << " " << name;
      if (name.rfind("router.", 0) == 0) largest = std::max(largest, gradient.abs().max().item<double>());
      if (name.rfind("experts.", 0) == 0) {
        EXPECT_EQ(gradient.abs().max().item<double>(), 0.0) << what;
      }
    }
    EXPECT_GT(largest, 0.0) << what;
  });
}

TEST(Law, every_loss_of_a_micro_batch_without_tokens_is_zero) {
  for_every_loss([](const Gate& gate, const AuxLoss& loss, const std::string& what) {
    auto context = ForwardContext::plain(0);
    gate.layer()->run(at::zeros({0, kModel}, at::kDouble), context);
    EXPECT_EQ(loss.share(context.traces.at(0), {.num_tokens = 0}).item<double>(), 0.0) << what;
  });
}

}  // namespace
