// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/stages/noise.h"

#include <cmath>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/where.h>

#include "conclave/ops/functions.h"

namespace conclave::moe {

namespace {

// `draw(id, index)` for every unit and index < width, in double, on the host.
template <class Draw>
at::Tensor drawn(const UnitMap& units, int64_t width, Draw draw) {
  auto values = at::empty({units.num_units, width}, at::kDouble);
  double* out = values.data_ptr<double>();
  const int64_t* id = units.global_id_U.const_data_ptr<int64_t>();
  for (int64_t u = 0; u < units.num_units; ++u) {
    for (int64_t i = 0; i < width; ++i) {
      *out++ = draw(static_cast<uint64_t>(id[u]), static_cast<uint32_t>(i));
    }
  }
  return values;
}

}  // namespace

at::Tensor jittered(const at::Tensor& x_UD, double eps, const UnitMap& units, const ForwardContext& context,
                    int layer) {
  if (eps == 0.0 || context.phase != Phase::kTrain) return x_UD;
  const auto factor_UD = drawn(units, x_UD.size(1), [&](uint64_t id, uint32_t i) {
    const double draw =
        context.random.uniform(RandomStream::kRouterJitter, static_cast<uint32_t>(layer), id, i);
    return 1.0 - eps + 2.0 * eps * draw;
  });
  return x_UD.mul(factor_UD.to(x_UD.options()));
}

void NoiseOptions::fields(config::Fields& f) {
  f("type", type,
    {{"none", NoiseType::kNone},
     {"gaussian", NoiseType::kGaussian},
     {"learned_gaussian", NoiseType::kLearnedGaussian}},
    "Training: Gaussian noise on the logits, of a fixed or a learned standard deviation.");
  f("std", std, "Standard deviation of gaussian noise.")
      .min(0)
      .only_if([this] { return type == NoiseType::kGaussian; }, "noise.type is not gaussian");
  f("epsilon", epsilon, "Added to a learned standard deviation.")
      .min(0)
      .only_if([this] { return type == NoiseType::kLearnedGaussian; }, "noise.type is not learned_gaussian");
}

at::Tensor noise_sigma(const NoiseOptions& options, const at::Tensor& x_UD, const at::Tensor& noise_weight_ED,
                       int64_t num_experts, int64_t step) {
  switch (options.type) {
    case NoiseType::kNone:
      break;
    case NoiseType::kGaussian:
      return at::full({x_UD.size(0), num_experts}, options.std.at(step), x_UD.options());
    case NoiseType::kLearnedGaussian:
      return at::softplus(at::linear(x_UD, noise_weight_ED)).add(options.epsilon);
  }
  return {};
}

at::Tensor normal_draws(const UnitMap& units, int64_t num_experts, const RandomKey& random, int layer,
                        const at::TensorOptions& options) {
  return drawn(units, num_experts,
               [&](uint64_t id, uint32_t e) {
                 return random.normal(RandomStream::kRouterNoise, static_cast<uint32_t>(layer), id, e);
               })
      .to(options);
}

at::Tensor threshold_of_others(const at::Tensor& logits_UE, int64_t k) {
  if (k >= logits_UE.size(1)) return at::full_like(logits_UE, -INFINITY);
  // The same selection as the router's, so that ties agree with it: an expert among the first k has to beat
  // the (k + 1)-th, every other one the k-th.
  const auto best_UK = ops::select_top_k(logits_UE.detach(), k + 1);
  const auto index_UK = best_UK.clamp_min(0).to(at::kLong);
  const auto values_UK = logits_UE.gather(1, index_UK).masked_fill(best_UK.lt(0), -INFINITY);
  const auto selected_UE =
      at::full_like(logits_UE.detach(), 0).scatter(1, index_UK.narrow(1, 0, k), 1.0).to(at::kBool);
  return at::where(selected_UE, values_UK.narrow(1, k, 1), values_UK.narrow(1, k - 1, 1));
}

}  // namespace conclave::moe
