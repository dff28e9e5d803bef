// SPDX-License-Identifier: Apache-2.0
// Expert choice, Soft MoE and DSelect-k against plain loops, in double: values and all gradients.
#include <cmath>

#include <ATen/ops/linear.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include "conclave/moe/losses/selector_losses.h"
#include "conclave/moe/routers/dselect_k.h"
#include "conclave/moe/routers/group_gates.h"
#include "small_layer.h"

namespace {

using namespace small;

template <class Reference>
void equals_reference(const std::shared_ptr<MoeLayer>& layer, Reference reference) {
  equal_in_value_and_gradients(
      *layer,
      [&](const at::Tensor& x) {
        auto context = three_documents();
        return layer->run(x, context);
      },
      reference);
}

TEST(ExpertChoice, value_and_gradients_equal_the_plain_loop) {
  auto layer = layer_with(make_expert_choice_router({.factor = 1.7}, shape()));
  equals_reference(layer, [&](const at::Tensor& x) {
    const auto p = at::linear(x, layer->named_parameters()["router.weight"]).softmax(-1);
    auto y = at::zeros_like(x);
    for (int64_t e = 0; e < kBank; ++e) {
      const auto order = p.detach().select(1, e).argsort(/*stable=*/true, 0, /*descending=*/true);
      for (int64_t c = 0; c < 4; ++c) {  // ceil(11 * 1.7 / 6)
        const int64_t t = order[c].item<int64_t>();
        const auto row = expert_of(*layer, x[t], e).mul(p[t][e]).unsqueeze(0);
        y = y.index_add(0, at::tensor({t}, at::kLong), row);
      }
    }
    return y;
  });
}

TEST(SoftMoe, value_and_gradients_equal_the_plain_loop_document_by_document) {
  auto layer = layer_with(make_soft_router({.slots_per_expert = 2}, shape()));
  equals_reference(layer, [&](const at::Tensor& x) {
    const auto p = layer->named_parameters();
    const auto unit = [](const at::Tensor& v) { return v.div(v.square().sum(-1, true).add(1e-6).sqrt()); };
    const auto logits = unit(x).matmul(unit(p["router.slots"]).mul(p["router.scale"]).t());
    std::vector<at::Tensor> rows(kUnits);
    for (const auto& [begin, end] : {std::pair(0, 3), std::pair(3, 8), std::pair(8, 11)}) {
      const auto z = logits.narrow(0, begin, end - begin), members = x.narrow(0, begin, end - begin);
      std::vector<at::Tensor> outputs;
      for (int64_t slot = 0; slot < 2 * kBank; ++slot) {
        outputs.push_back(expert_of(*layer, z.select(1, slot).softmax(0).matmul(members), slot / 2));
      }
      for (int64_t t = begin; t < end; ++t) rows[t] = z[t - begin].softmax(0).matmul(at::stack(outputs));
    }
    return at::stack(rows);
  });
}

TEST(DSelectK, value_and_gradients_equal_the_plain_loop_also_where_selectors_are_saturated) {
  for (const double gamma : {20.0, 0.8}) {
    auto layer = layer_with(make_dselect_k_router({.num_selectors = 3, .gamma = gamma}, shape()));
    for (auto& p : layer->named_parameters()) {
      if (p.key() == "router.z_weight") {
        const c10::NoGradGuard no_grad;
        p.value().copy_(normal(p.value().sizes(), 51));
      }
    }
    equals_reference(layer, [&](const at::Tensor& x) {
      const auto p = layer->named_parameters();
      std::vector<at::Tensor> rows;
      for (int64_t t = 0; t < kUnits; ++t) {
        const auto z = at::linear(x[t], p["router.z_weight"], p["router.z_bias"]).view({3, 3});
        const auto alpha = at::linear(x[t], p["router.alpha_weight"], p["router.alpha_bias"]).softmax(0);
        auto y = at::zeros_like(x[t]);
        for (int64_t s = 0; s < 3; ++s) {
          for (int64_t e = 0; e < kBank; ++e) {
            auto r = alpha[s];
            for (int64_t b = 0; b < 3; ++b) {
              const auto u = z[s][b];
              const double v = u.item<double>();
              auto step = v <= -gamma / 2 ? u.mul(0)
                          : v >= gamma / 2
                              ? u.mul(0).add(1)
                              : u.pow(3).mul(-2 / std::pow(gamma, 3)).add(u.mul(1.5 / gamma)).add(0.5);
              r = r.mul((e >> (2 - b)) & 1 ? step : step.neg().add(1));
            }
            y = y.add(expert_of(*layer, x[t], e).mul(r));
          }
        }
        rows.push_back(y);
      }
      return at::stack(rows);
    });
  }
}

TEST(DSelectK, code_products_entropy_and_reachability_match_hand_calculations) {
  const auto z = at::tensor({0.1, -0.2, 0.3}, at::kDouble);
  const auto eight = selector_probabilities(z, 8, 1.0);
  EXPECT_NEAR(eight[5].item<double>(), 0.455197, 1e-6);
  EXPECT_NEAR(eight.sum().item<double>(), 1.0, 1e-12);
  const auto five = selector_probabilities(z, 5, 1.0);
  EXPECT_NEAR(five.sum().item<double>(), 0.404835, 1e-6);
  EXPECT_NEAR(selector_probabilities(z.mul(0), 5, 1.0).sum().item<double>(), 0.625, 1e-12);

  RouterTrace trace;
  trace.tensors["selector_UKE"] = five.view({1, 1, 5});
  EXPECT_NEAR(
      reachability_entry().make(ReachabilityOptions{})->share(trace, {.num_tokens = 1}).item<double>(),
      2.470140, 1e-5);
  trace.tensors["selector_UKE"] = eight.view({1, 1, 8});
  EXPECT_NEAR(
      selector_entropy_entry().make(SelectorEntropyOptions{})->share(trace, {.num_tokens = 1}).item<double>(),
      1.504250, 1e-5);
}

}  // namespace
