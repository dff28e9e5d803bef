// SPDX-License-Identifier: Apache-2.0
// Own operators against ATen compositions or plain loops, in double.
#include "conclave/ops/functions.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/ops/adamw.h"
#include "conclave/ops/expert_mlp.h"
#include "conclave/ops/product.h"

namespace {

using namespace conclave;

void expect_within(const at::Tensor& got, const at::Tensor& want, double tolerance) {
  const double scale = std::max(want.abs().max().item<double>(), 1e-3);
  EXPECT_LE(got.sub(want).abs().max().item<double>(), tolerance * scale);
}

TEST(LinearCrossEntropy, sum_and_gradients_equal_aten_for_any_chunk_with_missing_targets) {
  const auto target = at::tensor({3, -1, 0, 6, -1, 2, 2}, at::kLong);
  for (const int64_t chunk : {1, 3, 100}) {
    const auto x = at::randn({7, 5}, at::kDouble).requires_grad_(true);
    const auto w = at::randn({11, 5}, at::kDouble).requires_grad_(true);
    const auto got = ops::linear_cross_entropy(x, w, target, chunk);
    got.sum.mul(0.3).backward();
    const auto dx = x.grad().clone(), dw = w.grad().clone();
    x.mutable_grad() = at::Tensor();
    w.mutable_grad() = at::Tensor();
    const auto want = at::cross_entropy_loss(x.mm(w.t()), target, {}, at::Reduction::Sum, -1);
    want.mul(0.3).backward();
    expect_within(got.sum, want, 1e-9);
    expect_within(got.per_token_T.sum(), want, 1e-9);
    expect_within(dx, x.grad(), 1e-9);
    expect_within(dw, w.grad(), 1e-9);
  }
}

TEST(LinearCrossEntropy, no_target_at_all_is_zero_and_an_id_past_the_vocabulary_is_refused) {
  const auto x = at::randn({3, 5}, at::kDouble).requires_grad_(true);
  const auto w = at::randn({11, 5}, at::kDouble);
  const auto loss = ops::linear_cross_entropy(x, w, at::tensor({-1, -1, -1}, at::kLong));
  loss.sum.backward();
  EXPECT_EQ(loss.sum.item<double>(), 0.0);
  EXPECT_EQ(x.grad().abs().max().item<double>(), 0.0);
  EXPECT_THROW(ops::linear_cross_entropy(x, w, at::tensor({1, 11, 2}, at::kLong)), Error);
}

TEST(RmsNorm, equals_aten) {
  const auto x = at::randn({3, 5, 7}, at::kDouble), w = at::randn({7}, at::kDouble);
  expect_within(ops::rms_norm(x, w, 1e-6), at::rms_norm(x, {7}, w, 1e-6), 1e-9);
}

TEST(SwiGlu, value_and_gradient_equal_the_composition) {
  const auto x = at::randn({3, 5, 14}, at::kDouble).requires_grad_(true);
  const auto probe = at::randn({3, 5, 7}, at::kDouble);
  const auto got = ops::swiglu(x);
  got.mul(probe).sum().backward();
  const auto dx = x.grad().clone();
  x.mutable_grad() = at::Tensor();
  const auto want = at::silu(x.narrow(-1, 0, 7)).mul(x.narrow(-1, 7, 7));
  want.mul(probe).sum().backward();
  expect_within(got, want, 1e-9);
  expect_within(dx, x.grad(), 1e-9);
}

TEST(AdamW, equals_the_fused_operator_of_aten_over_several_steps) {
  auto p = at::randn({13}, at::kDouble), m = at::zeros({13}, at::kDouble), v = at::zeros({13}, at::kDouble);
  auto p2 = p.clone(), m2 = m.clone(), v2 = v.clone();
  for (int64_t step = 1; step <= 4; ++step) {
    auto g = at::randn({13}, at::kDouble);
    ops::adamw_(
        p, g, m, v,
        {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1, .step = step, .grad_scale = 0.5});
    auto scaled = g.mul(0.5), count = at::tensor(static_cast<float>(step));
    at::_fused_adamw_({p2}, {scaled}, {m2}, {v2}, {}, {count}, 0.01, 0.9, 0.95, 0.1, 1e-8, false, false);
    expect_within(p, p2, 1e-9);
    expect_within(v, v2, 1e-9);
  }
}

TEST(SelectTopK, ties_go_to_the_lowest_index_and_nan_is_never_chosen) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto scores = at::tensor({1.0, 3.0, 3.0, nan, nan, nan, 0.5, nan}, at::kDouble).view({2, 4});
  const auto chosen = ops::select_top_k(scores, 3);
  const std::vector<int32_t> got(chosen.data_ptr<int32_t>(), chosen.data_ptr<int32_t>() + 6);
  EXPECT_EQ(got, (std::vector<int32_t>{1, 2, 0, 2, -1, -1}));
}

TEST(ExpertMlp, an_expert_without_rows_gets_exactly_zero_gradients_and_zero_weights_have_one) {
  const auto x = at::randn({4, 3}, at::kDouble);
  const auto w13 = at::randn({3, 10, 3}, at::kDouble).requires_grad_(true);
  const auto w2 = at::randn({3, 3, 5}, at::kDouble).requires_grad_(true);
  const auto s = at::tensor({0.0, -1.0, 0.5, 2.0}, at::kDouble).requires_grad_(true);
  const ops::Rows rows{.source_SD = x,
                       .row_source_A = at::tensor({0, 1, 2, 3}, at::kInt),
                       .expert_offsets_E1 = at::tensor({0, 2, 2, 4}, at::kInt),
                       .source_offsets_S1 = at::tensor({0, 1, 2, 3, 4}, at::kInt),
                       .rows_N = at::tensor({0, 1, 2, 3}, at::kInt)};
  ops::expert_mlp(rows, s, w13, w2).sum().backward();
  EXPECT_EQ(w13.grad()[1].abs().max().item<double>(), 0.0);
  EXPECT_EQ(w2.grad()[1].abs().max().item<double>(), 0.0);
  const auto h = x[0].matmul(w13.detach()[0].t());
  const auto y = at::silu(h.narrow(0, 0, 5)).mul(h.narrow(0, 5, 5)).matmul(w2.detach()[0].t());
  expect_within(s.grad()[0], y.sum(), 1e-9);  // the weight is 0, its gradient is not
}

// Seven tokens of width 24, each to two of three experts; expert 2 gets none.
struct SmallBank {
  explicit SmallBank(c10::ScalarType stored) {
    const auto wide = stored == at::kDouble ? at::kDouble : at::kFloat;
    x = at::randn({7, 24}, at::kDouble).to(stored).set_requires_grad(true);
    s = at::randn({14}, at::kDouble).to(wide).set_requires_grad(true);
    w13 = at::randn({3, 20, 24}, at::kDouble).mul(0.2).to(wide).set_requires_grad(true);
    w2 = at::randn({3, 24, 10}, at::kDouble).mul(0.3).to(wide).set_requires_grad(true);
    const auto row = at::arange(14, at::kInt);
    rows = {.source_SD = x,
            .row_source_A = row.remainder(7).to(at::kInt),
            .expert_offsets_E1 = at::tensor({0, 7, 14, 14}, at::kInt),
            .source_offsets_S1 = at::arange(0, 16, 2, at::kInt),
            .rows_N = at::tensor({0, 7, 1, 8, 2, 9, 3, 10, 4, 11, 5, 12, 6, 13}, at::kInt)};
  }
  std::vector<at::Tensor> gradients(std::optional<c10::ScalarType> product) {
    const auto y = ops::expert_mlp(rows, s, w13, w2, product);
    const auto out = ops::combine_rows(y, rows.source_offsets_S1, rows.rows_N);
    out.backward(at::ones_like(out));
    std::vector<at::Tensor> all{out.detach()};
    for (auto leaf : {x, s, w13, w2}) {
      EXPECT_EQ(leaf.grad().scalar_type(), leaf.scalar_type());
      all.push_back(leaf.grad().clone());
      leaf.mutable_grad().reset();
    }
    return all;
  }
  at::Tensor x, s, w13, w2;
  ops::Rows rows;
};

void expect_near_in_norm(const at::Tensor& got, const at::Tensor& want, double tolerance) {
  const auto exact = want.to(at::kDouble);
  EXPECT_LE(got.to(at::kDouble).sub(exact).norm().item<double>(), tolerance * exact.norm().item<double>());
}

TEST(ExpertMlp, bf16_rows_with_fp32_weights_stay_near_double_whichever_type_multiplies) {
  for (const auto product : {at::kFloat, at::kBFloat16}) {  // bf16 also pads 7 rows to 64
    SmallBank bf16(at::kBFloat16), exact(at::kDouble);
    exact.x = bf16.x.detach().to(at::kDouble).set_requires_grad(true);
    exact.rows.source_SD = exact.x;
    exact.s = bf16.s.detach().to(at::kDouble).set_requires_grad(true);
    exact.w13 = bf16.w13.detach().to(at::kDouble).set_requires_grad(true);
    exact.w2 = bf16.w2.detach().to(at::kDouble).set_requires_grad(true);
    const auto got = bf16.gradients(product), want = exact.gradients({});
    for (size_t i = 0; i < got.size(); ++i) expect_near_in_norm(got[i], want[i], 2e-2);
    EXPECT_EQ(got[3][2].abs().max().item<double>(), 0.0) << "an expert without rows";
  }
}

TEST(ExpertMlp, experts_run_by_several_threads_repeat_themselves_bit_for_bit) {
  SmallBank bank(at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  const auto first = bank.gradients({});
  for (int run = 0; run < 20; ++run) {
    const auto again = bank.gradients({});
    for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(again[i], first[i]));
  }
  at::set_num_threads(threads);
}

TEST(Linear, bf16_input_with_an_fp32_weight_gives_an_fp32_gradient) {
  const auto x = at::randn({5, 3, 24}).to(at::kBFloat16).set_requires_grad(true);
  const auto w = at::randn({11, 24}).set_requires_grad(true);
  const auto probe = at::randn({5, 3, 11}).to(at::kBFloat16);
  const auto y = ops::linear(x, w);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  y.backward(probe);
  const auto x2 = x.detach().to(at::kDouble), w2 = w.detach().to(at::kDouble), d = probe.to(at::kDouble);
  expect_near_in_norm(y, x2.matmul(w2.t()), 2e-2);
  expect_near_in_norm(x.grad(), d.matmul(w2), 2e-2);
  EXPECT_EQ(w.grad().scalar_type(), at::kFloat);
  expect_near_in_norm(w.grad(), d.reshape({-1, 11}).t().mm(x2.reshape({-1, 24})), 2e-2);
}

TEST(RmsNorm, gradients_equal_those_of_aten_also_over_several_chunks_of_rows) {
  const auto x = at::randn({601, 7}, at::kDouble).set_requires_grad(true);
  const auto w = at::randn({7}, at::kDouble).set_requires_grad(true),
             probe = at::randn({601, 7}, at::kDouble);
  ops::rms_norm(x, w, 1e-6).backward(probe);
  const auto dx = x.grad().clone(), dw = w.grad().clone();
  x.mutable_grad().reset();
  w.mutable_grad().reset();
  at::rms_norm(x, {7}, w, 1e-6).backward(probe);
  expect_within(dx, x.grad(), 1e-9);
  expect_within(dw, w.grad(), 1e-9);
}

TEST(Rope, value_and_gradient_equal_the_composition) {
  const auto x = at::randn({2, 3, 5, 14}, at::kDouble).set_requires_grad(true), probe = at::randn_like(x);
  const auto angle = at::rand({2, 1, 5, 7}, at::kDouble).mul(6);
  const auto cos = angle.cos(), sin = angle.sin();
  const auto got = ops::rope(x, cos, sin);
  got.backward(probe);
  const auto dx = x.grad().clone();
  x.mutable_grad().reset();
  const auto a = x.narrow(-1, 0, 7), b = x.narrow(-1, 7, 7);
  const auto want = at::cat({a.mul(cos).sub(b.mul(sin)), b.mul(cos).add(a.mul(sin))}, -1);
  want.backward(probe);
  expect_within(got, want, 1e-9);
  expect_within(dx, x.grad(), 1e-9);
}

TEST(FrozenWeights, get_no_gradient_and_do_not_change_the_others) {
  const auto x = at::randn({4, 3}, at::kDouble), s = at::randn({4}, at::kDouble);
  const auto w13 = at::randn({2, 10, 3}, at::kDouble), w2 = at::randn({2, 3, 5}, at::kDouble);
  const auto head = at::randn({7, 3}, at::kDouble), target = at::tensor({1, 6, -1, 0}, at::kLong);
  std::vector<at::Tensor> d_x;
  for (const bool trains : {true, false}) {
    const auto x1 = x.clone().requires_grad_(true);
    const auto a = w13.clone().requires_grad_(trains), b = w2.clone().requires_grad_(trains);
    const auto h = head.clone().requires_grad_(trains);
    const ops::Rows rows{.source_SD = x1,
                         .row_source_A = at::tensor({0, 1, 2, 3}, at::kInt),
                         .expert_offsets_E1 = at::tensor({0, 1, 4}, at::kInt),
                         .source_offsets_S1 = at::tensor({0, 1, 2, 3, 4}, at::kInt),
                         .rows_N = at::tensor({0, 1, 2, 3}, at::kInt)};
    ops::linear_cross_entropy(ops::expert_mlp(rows, s, a, b), h, target).sum.backward();
    for (const auto& weight : {a, b, h}) EXPECT_EQ(weight.grad().defined(), trains);
    d_x.push_back(x1.grad());
  }
  EXPECT_TRUE(d_x[0].equal(d_x[1]));
}

}  // namespace
