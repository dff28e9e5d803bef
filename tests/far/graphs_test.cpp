// SPDX-License-Identifier: Apache-2.0
// Functions and layers that are recorded once and replayed compute what they compute launch by launch.
#include <ATen/ops/arange.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/ops/graphed.h"
#include "far_device.h"
#include "far_graphs.h"
#include "far_kernels.h"
#include "moe/recorded_law.h"

namespace conclave::far {
namespace {

using namespace small;
using Tensors = std::vector<at::Tensor>;

at::Tensor there(const at::Tensor& t, bool requires_grad = false) {
  return t.to(kDevice).requires_grad_(requires_grad);
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// x -> (x w)^2, and how many of its values are positive.
Tensors squares(const Tensors& inputs, const at::Tensor& w) {
  const auto y = inputs[0].mm(w).square();
  return {y, y.gt(1).sum()};
}

TEST(Graphed, repeats_a_function_and_its_gradients) {
  install_host_kernels();
  const auto w = there(normal({3, 2}, 1), true), w_eager = there(normal({3, 2}, 1), true);
  std::unique_ptr<ops::Graphed> graphed;
  for (const uint64_t seed : {11, 12, 13}) {
    const auto x = there(normal({4, 3}, seed), true), x_eager = there(normal({4, 3}, seed), true);
    if (!graphed)
      graphed = std::make_unique<ops::Graphed>([&](const Tensors& in) { return squares(in, w); }, Tensors{x},
                                               Tensors{w});
    const auto before = num_replays();
    const auto got = (*graphed)({x}), want = squares({x_eager}, w_eager);
    got[0].sum().backward();
    want[0].sum().backward();
    EXPECT_EQ(num_replays() - before, 2);
    EXPECT_TRUE(got[0].equal(want[0]));
    EXPECT_TRUE(got[1].equal(want[1]));
    EXPECT_FALSE(got[1].requires_grad());
    EXPECT_TRUE(x.grad().equal(x_eager.grad()));
    EXPECT_TRUE(w.grad().equal(w_eager.grad())) << "gradients add up over calls";
  }
}

TEST(Graphed, refuses_what_it_cannot_repeat) {
  install_host_kernels();
  const auto x = there(normal({4, 3}, 1), true), w = there(normal({3, 2}, 1), true);
  const auto record = [&](const std::function<at::Tensor(const at::Tensor&)>& f) {
    return message_of(
        [&] { ops::Graphed graphed([&](const Tensors& in) { return Tensors{f(in[0])}; }, {x}, {}); });
  };
  EXPECT_NE(record([](const at::Tensor& t) { return t.mul(t.sum().item<double>()); }).find("_local_scalar_"),
            std::string::npos);
  EXPECT_NE(record([](const at::Tensor& t) {
              return t.add(normal({4, 3}, 2).to(kDevice));
            }).find("the host"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              const auto here = normal({4, 3}, 1);
              ops::Graphed graphed([&](const Tensors& in) { return in; }, {here}, {});
            }).find("the CPU computes at once"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              ops::Graphed graphed([&](const Tensors& in) { return in; }, {x, normal({1}, 1)}, {});
            }).find("one input is on hpu:0 and another on cpu"),
            std::string::npos);

  const ops::Graphed graphed([&](const Tensors& in) { return squares(in, w); }, {x}, {w});
  EXPECT_NE(message_of([&] {
              graphed({there(normal({5, 3}, 1))});
            }).find("input 0 was recorded as Double [4, 3] on hpu:0, and is Double [5, 3] on hpu:0"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              graphed({x, x});
            }).find("recorded with 1 inputs, called with 2"),
            std::string::npos);
  const auto first = graphed({x}), second = graphed({x});
  second[0].sum().backward();
  EXPECT_NE(message_of([&] { first[0].sum().backward(); }).find("called again before this backward pass"),
            std::string::npos);
  EXPECT_NE(message_of([&] { second[0].sum().backward(); }).find("a call has one backward pass"),
            std::string::npos);
  const auto loss = w.sum();
  EXPECT_NE(message_of([&] {
              ops::Graphed again([&](const Tensors& in) { return squares(in, w); }, {x}, {w});
            }).find("let go of losses and outputs"),
            std::string::npos);
}

const DeviceSize kSmall{
    .width = 8, .inner = 12, .parameters = at::kFloat, .rows = at::kFloat, .tolerance = 0};

// Also where only a view of the input goes in, whose gradient nobody but its leaf holds.
TEST(Graphed, gradients_of_an_input_add_up_over_calls) {
  install_host_kernels();
  const auto w = there(normal({3, 2}, 1));
  const auto x = there(normal({12}, 2), true), x_eager = there(normal({12}, 2), true);
  const ops::Graphed graphed([&](const Tensors& in) { return squares(in, w); }, {x.view({4, 3})}, {});
  for (const double factor : {1.0, 3.0}) {
    graphed({x.mul(factor).view({4, 3})})[0].sum().backward();
    squares({x_eager.mul(factor).view({4, 3})}, w)[0].sum().backward();
  }
  graphed({x.view({4, 3})})[0].sum().backward();
  squares({x_eager.view({4, 3})}, w)[0].sum().backward();
  graphed({x.view({4, 3})})[0].sum().mul(2).backward();
  squares({x_eager.view({4, 3})}, w)[0].sum().mul(2).backward();
  EXPECT_TRUE(x.grad().equal(x_eager.grad()));
  const auto y = there(normal({12}, 3), true);
  graphed({y.view({4, 3})})[0].sum().backward();
  const auto first = y.grad().cpu();
  graphed({x.view({4, 3})})[0].sum().backward();
  EXPECT_TRUE(y.grad().cpu().equal(first)) << "overwritten by the next call";
}

std::shared_ptr<MoeLayer> plain_layer(bool cuda_graph) {
  return layer_on(kDevice, {"topk", topk_entry(), config::AnyOptions(TopKOptions{})}, kSmall, cuda_graph);
}

TEST(Graphed, layers_of_every_router_that_launches_the_same_are_repeated) {
  install_host_kernels();
  expect_recorded_layers_as_they_run(kDevice, kSmall);
}

TEST(Graphed, a_pass_is_two_launches) {
  install_host_kernels();
  const auto layer = plain_layer(true);
  for (int64_t step = 0; step < 3; ++step) {
    const auto before = num_replays();
    results_of_step(*layer, kDevice, kSmall, step);
    EXPECT_EQ(num_replays() - before, 2);
  }
}

// Counts are added up over the micro-batches of a step, and read at its end.
TEST(Graphed, counts_of_a_pass_outlive_the_next) {
  install_host_kernels();
  const auto layer = plain_layer(true);
  auto context = three_documents();
  context.tokens.sequence_of_unit_U = context.tokens.sequence_of_unit_U.to(kDevice);
  std::vector<at::Tensor> seen, now;
  for (const uint64_t seed : {1, 2, 3}) {
    layer->run(there(normal({kUnits, 8}, seed).to(at::kFloat), true), context);
    const auto& trace = context.traces.back();
    const auto& plan = std::get<SparsePlan>(trace.plan.body);
    for (const auto& t : {plan.requested_E, plan.kept_E, trace.non_finite}) {
      now.push_back(t);
      seen.push_back(t.cpu());
    }
  }
  EXPECT_FALSE(seen[0].equal(seen[3])) << "all steps are alike";
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_TRUE(now[i].cpu().equal(seen[i])) << i;
}

TEST(Graphed, evaluation_and_padding_are_not_recorded) {
  install_host_kernels();
  const auto layer = plain_layer(true);
  const auto before = num_replays();
  auto context = three_documents(Phase::kEval);
  context.tokens.sequence_of_unit_U = context.tokens.sequence_of_unit_U.to(kDevice);
  const auto x = there(normal({kUnits, 8}, 50).to(at::kFloat), true);
  layer->run(x, context);
  context.phase = Phase::kTrain;
  {
    const c10::NoGradGuard no_grad;
    layer->run(x, context);
  }
  context.tokens.row_of_unit_U = at::arange(1, kUnits + 1, at::kLong).to(kDevice);
  context.tokens.num_rows = kUnits + 2;
  layer->run(there(normal({kUnits + 2, 8}, 50).to(at::kFloat), true), context);
  EXPECT_EQ(num_replays(), before);
}

}  // namespace
}  // namespace conclave::far
