// SPDX-License-Identifier: Apache-2.0
// The plain-loop twins of the kernels against compositions of ATen operations, in double where they take it.
#include <ATen/Context.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/complex.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/imag.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/polar.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/real.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "adamw.h"
#include "norm.h"
#include "permute.h"
#include "rope.h"
#include "router.h"
#include "routing.h"
#include "swiglu.h"

namespace {

using namespace conclave::kernels;

constexpr double kTolerance = 1e-9;

void expect_equal(const at::Tensor& got, const at::Tensor& want, double tolerance = kTolerance) {
  ASSERT_EQ(got.sizes(), want.sizes());
  EXPECT_TRUE(at::isfinite(got).all().item<bool>());
  if (got.numel() == 0) return;
  const auto error = (got - want).abs().max().item<double>();
  EXPECT_LE(error, tolerance * std::max(1e-3, want.abs().max().item<double>()));
}
double* data(const at::Tensor& t) {
  return t.data_ptr<double>();
}
int32_t* ints(const at::Tensor& t) {
  return t.data_ptr<int32_t>();
}
at::Tensor poisoned(at::IntArrayRef shape, at::ScalarType type = at::kDouble) {
  return type == at::kInt ? at::full(shape, -77, at::kInt) : at::full(shape, NAN, type);
}

struct Shape {
  int64_t units, width, most;
};
const std::vector<Shape> kShapes = {{0, 3, 2}, {1, 1, 1}, {32, 5, 3}, {257, 2880, 2}, {1009, 7, 4}};

TEST(Twins, rows_move_as_index_and_matrix_products_say) {
  for (const auto& [units, width, most] : kShapes) {
    at::manual_seed(1);
    const auto count_U = at::randint(0, most + 1, {units}, at::kLong);
    const auto offsets = at::cat({at::zeros({1}, at::kLong), count_U.cumsum(0)}).to(at::kInt);
    const int64_t n = count_U.sum().item<int64_t>();
    const auto unit = at::arange(units).repeat_interleave(count_U);
    const auto kept = at::rand({n}).gt(0.2).nonzero().squeeze(1);
    const int64_t rows = kept.size(0);
    auto row_of = at::full({n}, -1, at::kInt);
    row_of.index_put_({kept}, at::randperm(rows).to(at::kInt));
    // Rows by units: 1 where a pair of the unit has the row.
    auto routes = at::zeros({rows, units}, at::kDouble), weighted = routes.clone();
    const auto weight = at::randn({n}, at::kDouble);
    const auto row = row_of.index({kept}).to(at::kLong);
    routes.index_put_({row, unit.index({kept})}, at::ones({rows}, at::kDouble));
    weighted.index_put_({row, unit.index({kept})}, weight.index({kept}));
    const auto x = at::randn({units, width}, at::kDouble), y = at::randn({rows, width}, at::kDouble);

    const auto permuted = poisoned({rows, width}), summed = poisoned({units, width});
    permute_rows_ref(data(x), ints(offsets), ints(row_of), data(permuted), width, 0, units);
    expect_equal(permuted, routes.mm(x));
    sum_rows_ref(data(y), ints(offsets), ints(row_of), data(weight), data(summed), width, 0, units);
    expect_equal(summed, weighted.t().mm(y));

    const auto d_rows = poisoned({rows, width}), d_weight = poisoned({n});
    combine_backward_ref(data(x), data(y), ints(unit.to(at::kInt)), ints(row_of), data(weight), data(d_rows),
                         data(d_weight), width, 0, n);
    expect_equal(d_rows, weighted.mm(x));
    auto dots = at::zeros({n}, at::kDouble);
    dots.index_put_({kept}, y.index({row}).mul(x.index({unit.index({kept})})).sum(1));
    expect_equal(d_weight, dots);
  }
}

TEST(Twins, swiglu_and_its_gradients_are_those_of_autograd) {
  for (const auto& [rows, width, unused] : kShapes) {
    at::manual_seed(2);
    const auto h = at::randn({rows, 2 * width}, at::kDouble).mul(3).requires_grad_();
    const auto scale = at::randn({rows}, at::kDouble).requires_grad_(),
               d = at::randn({rows, width}, at::kDouble);
    const auto act = at::silu(h.narrow(1, 0, width)).mul(h.narrow(1, width, width));
    act.mul(scale.unsqueeze(1)).mul(d).sum().backward();
    const auto got = poisoned({rows, width}), d_h = poisoned({rows, 2 * width}),
               scaled = poisoned({rows, width}), d_scale = poisoned({rows});
    swiglu_forward_ref<double, double>(data(h), nullptr, data(got), width, 0, rows);
    expect_equal(got, act.detach());
    swiglu_forward_ref(data(h), data(scale), data(got), width, 0, rows);
    expect_equal(got, act.detach().mul(scale.detach().unsqueeze(1)));
    swiglu_backward_ref(data(h), data(d), data(scale), data(d_h), data(scaled), data(d_scale), width, 0,
                        rows);
    expect_equal(d_h, h.grad());
    expect_equal(d_scale, scale.grad());
    expect_equal(scaled, act.detach().mul(scale.detach().unsqueeze(1)));
  }
}

TEST(Twins, rms_norm_and_its_gradients_are_those_of_autograd) {
  for (const auto& [rows, width, unused] : kShapes) {
    at::manual_seed(3);
    const auto x = at::randn({rows, width}, at::kDouble).requires_grad_();
    const auto weight = at::randn({width}, at::kDouble).requires_grad_(),
               d = at::randn({rows, width}, at::kDouble);
    const auto inv = x.square().mean(1).add(1e-6).rsqrt();
    const auto out = x.mul(inv.unsqueeze(1)).mul(weight);
    out.mul(d).sum().backward();
    const auto got = poisoned({rows, width}), got_inv = poisoned({rows}), d_x = poisoned({rows, width}),
               d_weight = at::ones({width}, at::kDouble);
    rms_norm_forward_ref(data(x), data(weight), 1e-6, data(got), data(got_inv), width, 0, rows);
    expect_equal(got, out.detach());
    expect_equal(got_inv, inv.detach());
    rms_norm_backward_ref(data(x), data(weight), data(got_inv), data(d), data(d_x), data(d_weight), width, 0,
                          rows);
    expect_equal(d_x, x.grad());
    expect_equal(d_weight, weight.grad().add(1.0));
  }
}

TEST(Twins, adamw_is_that_of_aten) {
  for (const int64_t count : {0, 1, 257, 1009}) {
    at::manual_seed(4);
    auto p = at::randn({count}, at::kDouble), m = at::randn({count}, at::kDouble),
         v = at::rand({count}, at::kDouble);
    const auto g = at::randn({count}, at::kDouble);
    auto p2 = p.clone(), m2 = m.clone(), v2 = v.clone();
    const double step = 7, beta1 = 0.8, beta2 = 0.95;
    adamw_ref<double, double>(data(p), data(g), data(m), data(v), nullptr,
                              {.lr = 0.03,
                               .beta1 = beta1,
                               .beta2 = beta2,
                               .weight_decay = 0.1,
                               .bias_correction1 = 1 - std::pow(beta1, step),
                               .bias_correction2 = 1 - std::pow(beta2, step)},
                              0, count);
    at::_fused_adamw_({p2}, {g}, {m2}, {v2}, {}, {at::full({}, step, at::kFloat)}, 0.03, beta1, beta2, 0.1,
                      1e-8, false, false);
    expect_equal(p, p2);
    expect_equal(m, m2);
    expect_equal(v, v2);
  }
}

TEST(Twins, sorting_is_a_stable_sort_and_capacity_takes_the_first) {
  for (const int64_t experts : {1, 7, 130}) {
    for (const int64_t n : {0, 1, 257, 1009}) {
      for (const int64_t capacity : {int64_t{INT32_MAX}, int64_t{5}}) {
        at::manual_seed(5);
        const auto expert = at::randint(-1, experts, {n}, at::kInt);
        const auto offsets = poisoned({experts + 1}, at::kInt), pair_of = poisoned({n}, at::kInt),
                   unit_of = poisoned({n}, at::kInt), row_of = poisoned({n}, at::kInt);
        sort_pairs_ref({.expert = ints(expert),
                        .n = n,
                        .num_experts = experts,
                        .pairs_per_unit = 3,
                        .capacity = capacity,
                        .offsets = ints(offsets),
                        .pair_of_row = ints(pair_of),
                        .unit_of_row = ints(unit_of),
                        .row_of_pair = ints(row_of)});
        const auto order = std::get<1>(at::sort(expert, /*stable=*/true, 0, false));
        const auto sorted = expert.index({order});
        const auto first = at::searchsorted(sorted, sorted, false, false);  // of the same expert
        const auto kept = order.index({(at::arange(n).sub(first).lt(capacity)).logical_and(sorted.ge(0))});
        const auto count = at::bincount(expert.index({kept}), {}, experts);
        EXPECT_TRUE(at::equal(offsets.narrow(0, 1, experts).to(at::kLong), count.cumsum(0)));
        const int64_t rows = kept.size(0);
        EXPECT_TRUE(at::equal(pair_of.narrow(0, 0, rows).to(at::kLong), kept));
        EXPECT_TRUE(at::equal(unit_of.narrow(0, 0, rows).to(at::kLong), kept.div(3, "floor")));
        auto rows_of = at::full({n}, -1, at::kLong);
        rows_of.index_put_({kept}, at::arange(rows));
        EXPECT_TRUE(at::equal(row_of.to(at::kLong), rows_of));
      }
    }
  }
}

// Gradients of everything that the router hands out, by autograd through the composition.
void check_router(const RouterShape& s, bool biased) {
  at::manual_seed(6);
  const auto logits = at::randn({s.tokens, s.num_experts}).mul(2), bias = at::randn({s.num_experts}).mul(0.1);
  const auto l = logits.to(at::kDouble).requires_grad_();
  const auto score = s.sigmoid ? l.sigmoid() : l.softmax(-1);
  auto by = (biased ? score.detach() + bias : l.detach()).to(at::kFloat);
  if (s.num_groups > 0) {
    const auto relative = biased ? by.to(at::kDouble) : s.sigmoid ? at::log_sigmoid(l.detach()) : l.detach();
    const auto grouped = relative.reshape({-1, s.num_groups, s.num_experts / s.num_groups});
    const auto two = std::get<0>(grouped.topk(s.group_top2 ? 2 : 1, -1));
    const auto group = biased ? two.sum(-1) : two.logsumexp(-1);
    const auto kept = std::get<1>(group.topk(s.topk_groups, -1));
    const auto outside = at::ones(group.sizes(), at::kBool).scatter(1, kept, false);
    by = by.masked_fill(outside.repeat_interleave(s.num_experts / s.num_groups, 1), -INFINITY);
  }
  const auto chosen = std::get<1>(by.topk(s.top_k, -1));
  const auto of_chosen = score.gather(1, chosen);
  const auto weight = (s.normalise ? of_chosen / of_chosen.sum(-1, true) : of_chosen) * s.scale;
  const auto z = l.logsumexp(-1).square().sum();
  const auto d_weight = at::randn({s.tokens, s.top_k}), d_sums = at::randn({s.num_experts}),
             d_scores = at::randn({s.tokens, s.num_experts});
  ((weight * d_weight).sum() + (score.sum(0) * d_sums).sum() + (score * d_scores).sum() + 0.25 * z)
      .backward();

  const auto got = poisoned({s.tokens, s.top_k}, at::kInt), counts = poisoned({s.num_experts}, at::kInt),
             bad = poisoned({1}, at::kInt);
  const auto w = poisoned({s.tokens, s.top_k}, at::kFloat), sums = poisoned({s.num_experts}, at::kFloat),
             z_sum = poisoned({1}, at::kFloat), d_logits = poisoned({s.tokens, s.num_experts}, at::kFloat);
  const auto scores = poisoned({s.tokens, s.num_experts}, at::kFloat);
  router_forward_ref<float>({.shape = s,
                             .logits = logits.data_ptr<float>(),
                             .bias = biased ? bias.data_ptr<float>() : nullptr,
                             .chosen = ints(got),
                             .weight = w.data_ptr<float>(),
                             .scores = scores.data_ptr<float>(),
                             .counts = ints(counts),
                             .score_sums = sums.data_ptr<float>(),
                             .z_sum = z_sum.data_ptr<float>(),
                             .non_finite = ints(bad)});
  EXPECT_TRUE(at::equal(got.to(at::kLong), chosen));
  EXPECT_TRUE(at::equal(counts.to(at::kLong), at::bincount(chosen.reshape({-1}), {}, s.num_experts)));
  EXPECT_EQ(bad.item<int>(), 0);
  expect_equal(w.to(at::kDouble), weight.detach(), 2e-5);
  expect_equal(scores.to(at::kDouble), score.detach(), 2e-5);
  expect_equal(sums.to(at::kDouble), score.detach().sum(0), 2e-5);
  expect_equal(z_sum.to(at::kDouble).squeeze(), z.detach(), 2e-5);
  router_backward_ref<float>({.shape = s,
                              .logits = logits.data_ptr<float>(),
                              .chosen = ints(got),
                              .d_weight = d_weight.data_ptr<float>(),
                              .d_scores = d_scores.data_ptr<float>(),
                              .d_score_sums = d_sums.data_ptr<float>(),
                              .d_z_sum = 0.25f,
                              .d_logits = d_logits.data_ptr<float>()});
  expect_equal(d_logits.to(at::kDouble), l.grad(), 2e-5);
}

TEST(Twins, the_router_is_the_composition_and_its_gradients_are_those_of_autograd) {
  const RouterShape shapes[] = {
      {.tokens = 0, .num_experts = 8, .top_k = 2},
      {.tokens = 1, .num_experts = 1, .top_k = 1},
      {.tokens = 257, .num_experts = 33, .top_k = 5, .scale = 2.5},
      {.tokens = 1009, .num_experts = 24, .top_k = 3, .num_groups = 4, .topk_groups = 2},
      {.tokens = 61, .num_experts = 30, .top_k = 7, .num_groups = 6, .topk_groups = 2, .group_top2 = false},
  };
  for (auto shape : shapes) {
    for (int flags = 0; flags < 8; ++flags) {
      SCOPED_TRACE(testing::Message() << shape.tokens << " tokens, flags " << flags);
      shape.sigmoid = flags & 1;
      shape.normalise = flags & 2;
      check_router(shape, flags & 4);
    }
  }
}

TEST(Twins, rotation_turns_complex_numbers) {
  constexpr int64_t kTokens = 53, kHeads = 3, kHalf = 7;
  at::manual_seed(8);
  const auto x = at::randn({kTokens, kHeads, 2 * kHalf}, at::kDouble),
             angle = at::randn({kTokens, 1, kHalf}, at::kDouble);
  const auto out = poisoned(x.sizes());
  rope_ref(data(x), data(angle.cos().contiguous()), data(angle.sin().contiguous()), data(out), kHeads, kHalf,
           1, 0, kTokens);
  const auto turned =
      at::complex(x.narrow(2, 0, kHalf), x.narrow(2, kHalf, kHalf)) * at::polar(at::ones_like(angle), angle);
  expect_equal(out, at::cat({at::real(turned), at::imag(turned)}, 2));
}

}  // namespace
