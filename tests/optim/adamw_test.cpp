// SPDX-License-Identifier: Apache-2.0
// The optimizer over tagged parameters; the update itself has its tests in tests/ops.
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/optim/gradients.h"
#include "conclave/optim/optimizer.h"

namespace {

using namespace conclave;
using nn::ParamRole;

struct Model {
  std::vector<nn::TaggedParameter> parameters;
  explicit Model(c10::ScalarType dtype = at::kDouble) {
    for (const auto role : {ParamRole::kEmbedding, ParamRole::kMatrix, ParamRole::kNorm, ParamRole::kBias,
                            ParamRole::kRouter, ParamRole::kExpert, ParamRole::kHead}) {
      const auto n = static_cast<int64_t>(parameters.size());
      parameters.push_back(
          {fmt::format("p{}", n), at::randn({n + 3, 5}, dtype).requires_grad_(true), {.role = role}});
    }
  }
  void set_gradients() {
    for (auto& p : parameters) p.tensor.mutable_grad() = at::randn(p.tensor.sizes(), p.tensor.options());
  }
};

bool decays(ParamRole role) {
  return role != ParamRole::kNorm && role != ParamRole::kBias;
}

TEST(AdamW, equals_the_fused_update_of_aten_per_group_over_several_steps) {
  for (const auto& [dtype, tolerance] : {std::pair(at::kDouble, 1e-9), std::pair(at::kFloat, 2e-5)}) {
    Model model(dtype);
    const optim::OptimizerOptions options{
        .betas = {0.8, 0.97}, .eps = 1e-7, .weight_decay = 0.3, .router_lr_multiplier = 0.25};
    optim::AdamW optimizer(model.parameters, options);
    std::vector<at::Tensor> p, m, v;
    for (const auto& parameter : model.parameters) {
      p.push_back(parameter.tensor.detach().clone());
      m.push_back(at::zeros_like(p.back()));
      v.push_back(at::zeros_like(p.back()));
    }
    for (int step = 1; step <= 7; ++step) {
      model.set_gradients();
      const double lr = 0.01 * step, scale = 0.4;
      for (size_t i = 0; i < p.size(); ++i) {
        const auto role = model.parameters[i].tag.role;
        const auto count = at::tensor(static_cast<float>(step));
        auto gradient = model.parameters[i].tensor.grad().mul(scale);
        at::_fused_adamw_({p[i]}, {gradient}, {m[i]}, {v[i]}, {}, {count},
                          role == ParamRole::kRouter ? lr * 0.25 : lr, 0.8, 0.97, decays(role) ? 0.3 : 0.0,
                          1e-7, false, false);
      }
      optimizer.step(lr, scale);
    }
    EXPECT_EQ(optimizer.num_steps(), 7);
    for (size_t i = 0; i < p.size(); ++i) {
      const auto& got = model.parameters[i].tensor;
      EXPECT_LE(got.detach().sub(p[i]).norm().item<double>(), tolerance * p[i].norm().item<double>()) << i;
      EXPECT_LE(optimizer.state()[i].exp_avg_sq.sub(v[i]).norm().item<double>(),
                tolerance * v[i].norm().item<double>());
    }
  }
}

TEST(AdamW, decay_acts_on_matrices_embeddings_head_router_and_experts_and_never_on_norms_and_biases) {
  Model model;
  optim::AdamW optimizer(model.parameters, {.weight_decay = 0.5});
  std::vector<at::Tensor> before;
  for (auto& p : model.parameters) {
    before.push_back(p.tensor.detach().clone());
    p.tensor.mutable_grad() = at::zeros_like(p.tensor);  // so that nothing but the decay moves it
  }
  optimizer.step(0.1, 1.0);
  for (size_t i = 0; i < before.size(); ++i) {
    const double factor = decays(model.parameters[i].tag.role) ? 1.0 - 0.1 * 0.5 : 1.0;
    EXPECT_TRUE(model.parameters[i].tensor.detach().allclose(before[i].mul(factor), 1e-12, 0)) << i;
  }
}

TEST(AdamW, a_frozen_parameter_has_no_moments_and_is_not_touched_and_one_without_gradient_waits) {
  Model model;
  model.parameters[0].tensor.set_requires_grad(false);
  optim::AdamW optimizer(model.parameters, {});
  model.set_gradients();
  model.parameters[0].tensor.mutable_grad() = at::Tensor();
  model.parameters[1].tensor.mutable_grad() = at::Tensor();
  const auto frozen = model.parameters[0].tensor.clone(), idle = model.parameters[1].tensor.detach().clone();
  EXPECT_TRUE(std::isfinite(optim::Gradients(model.parameters).norm()));
  optimizer.step(0.1, 1.0);
  EXPECT_FALSE(optimizer.state()[0].exp_avg.defined());
  EXPECT_TRUE(optimizer.state()[1].exp_avg.defined());
  EXPECT_TRUE(model.parameters[0].tensor.equal(frozen));
  EXPECT_TRUE(model.parameters[1].tensor.detach().equal(idle));
}

TEST(AdamW, the_gradient_norm_is_that_of_all_gradients_together) {
  Model model;
  optim::AdamW optimizer(model.parameters, {});
  model.set_gradients();
  double sum = 0;
  for (const auto& p : model.parameters) {
    const auto g = p.tensor.grad().contiguous();
    for (int64_t i = 0; i < g.numel(); ++i) sum += g.data_ptr<double>()[i] * g.data_ptr<double>()[i];
  }
  EXPECT_NEAR(optim::Gradients(model.parameters).norm(), std::sqrt(sum), 1e-9 * std::sqrt(sum));
}

}  // namespace
