// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/config/fields.h"
#include "conclave/moe/forward_context.h"

// Stages "input" and "logit transforms": random changes that only training sees. Every draw is keyed by seed,
// step, layer, global token id and index, so it depends on nothing else.
namespace conclave::moe {

// x times U(1 - eps, 1 + eps), elementwise (Switch Transformer, Fedus et al., 2021); x itself outside
// training and for eps 0. The experts get the clean input.
at::Tensor jittered(const at::Tensor& x_UD, double eps, const UnitMap& units, const ForwardContext& context,
                    int layer);

enum class NoiseType { kNone, kGaussian, kLearnedGaussian };

// Noise on the logits: H = z + sigma * N(0, 1).
//   gaussian          sigma = std, of all experts
//   learned_gaussian  sigma = softplus(x W_noise) + epsilon (noisy top-k, Shazeer et al., 2017, eq. 4; their
//                     code has epsilon 0.01). Router and noise weights start at zero.
struct NoiseOptions {
  NoiseType type = NoiseType::kNone;
  config::Value std = 1.0;
  double epsilon = 0.0;
  void fields(config::Fields& f);
};

// sigma_UE of this step; undefined without noise. noise_weight_ED is read by learned_gaussian only.
at::Tensor noise_sigma(const NoiseOptions& options, const at::Tensor& x_UD, const at::Tensor& noise_weight_ED,
                       int64_t num_experts, int64_t step);

// Standard normal draws [U, E] of this dtype and device.
at::Tensor normal_draws(const UnitMap& units, int64_t num_experts, const RandomKey& random, int layer,
                        const at::TensorOptions& options);

// For every unit and expert the k-th largest of the *other* experts' logits: the value that this expert has
// to beat to be among the k. Differentiable; -inf where k others do not exist (k = E).
at::Tensor threshold_of_others(const at::Tensor& logits_UE, int64_t k);

}  // namespace conclave::moe
