// SPDX-License-Identifier: Apache-2.0
#include "conclave/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include "conclave/ops/adamw.h"

namespace conclave::optim {

void OptimizerOptions::fields(config::Fields& f) {
  f("type", type, {{"adamw", OptimizerType::kAdamW}}, "Update rule.");
  f("lr", lr, "Peak learning rate.").positive();
  f("betas", betas, "Decay of the first and second moment.");
  f("eps", eps, "Added to the root of the second moment.").positive();
  f("weight_decay", weight_decay, "Decoupled decay of matrices and embeddings; norms and biases have none.")
      .min(0);
  f("router_lr_multiplier", router_lr_multiplier, "Learning rate of routers relative to the rest.").min(0);
  f.check([this](config::Check& check) {
    const bool valid = betas.size() == 2 && betas[0] >= 0 && betas[0] < 1 && betas[1] >= 0 && betas[1] < 1;
    if (!valid) check.error("betas", "expected two numbers in [0, 1)", "for example [0.9, 0.95]");
  });
}

void LrSchedulerOptions::fields(config::Fields& f) {
  f("type", type,
    {{"constant", ScheduleType::kConstant},
     {"linear", ScheduleType::kLinear},
     {"cosine", ScheduleType::kCosine},
     {"wsd", ScheduleType::kWsd},
     {"inverse_sqrt", ScheduleType::kInverseSqrt}},
    "Shape after the warm-up.");
  f("warmup_fraction", warmup_fraction, "Part of the run in which the rate rises linearly from 0.")
      .min(0)
      .max(1)
      .only_if([this] { return !warmup_iters.has_value(); }, "warmup_iters sets the warm-up");
  f("warmup_iters", warmup_iters, "Steps in which the rate rises linearly from 0; null: warmup_fraction.")
      .min(0);
  f("min_lr", min_lr, "Rate at the end of the run.").min(0);
  f("decay_fraction", decay_fraction, "wsd: last part of the run, in which the rate falls linearly.")
      .min(0)
      .max(1)
      .only_if([this] { return type == ScheduleType::kWsd; }, "lr_scheduler.type is not wsd");
}

double LrSchedulerOptions::at(double progress, double peak) const {
  progress = std::clamp(progress, 0.0, 1.0);
  if (progress < warmup_fraction) return peak * progress / warmup_fraction;
  return after_warmup(progress, peak, warmup_fraction);
}

// A run bounded by time may be further on its way than its step says; the rest of the shape follows progress.
double LrSchedulerOptions::at(const RunPosition& position, double peak) const {
  if (!warmup_iters) return at(position.progress, peak);
  const auto iters = static_cast<double>(*warmup_iters), step = static_cast<double>(position.step);
  const double warmup = std::min(1.0, iters / static_cast<double>(std::max<int64_t>(position.num_steps, 1)));
  const double rate = after_warmup(std::clamp(position.progress, 0.0, 1.0), peak, warmup);
  return step < iters ? rate * step / iters : rate;
}

double LrSchedulerOptions::after_warmup(double progress, double peak, double warmup) const {
  if (progress < warmup) return peak;
  const double rest = warmup < 1.0 ? (progress - warmup) / (1.0 - warmup) : 1.0;
  double shape = 1.0;  // 1: peak, 0: min_lr
  switch (type) {
    case ScheduleType::kConstant:
      return peak;
    case ScheduleType::kLinear:
      shape = 1.0 - rest;
      break;
    case ScheduleType::kCosine:
      shape = 0.5 * (1.0 + std::cos(std::numbers::pi * rest));
      break;
    case ScheduleType::kWsd:
      shape = decay_fraction > 0 ? std::min(1.0, (1.0 - progress) / decay_fraction) : 1.0;
      break;
    case ScheduleType::kInverseSqrt: {
      const double start = std::max(warmup, 0.01);  // without a warm-up: from one percent of the run
      return std::max(min_lr, peak * std::sqrt(start / std::max(progress, start)));
    }
  }
  return min_lr + (peak - min_lr) * shape;
}

AdamW::AdamW(std::vector<nn::TaggedParameter> parameters, const OptimizerOptions& options)
    : options_(options), parameters_(std::move(parameters)) {
  for (const auto& p : parameters_) {
    const bool frozen = !p.tensor.requires_grad();
    state_.push_back({p.name, p.tensor, frozen ? at::Tensor() : at::zeros_like(p.tensor),
                      frozen ? at::Tensor() : at::zeros_like(p.tensor)});
  }
}

void AdamW::step(double lr, double grad_scale) {
  const c10::NoGradGuard no_grad;
  ++num_steps_;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& p = parameters_[i];
    if (!p.tensor.grad().defined() || !state_[i].exp_avg.defined()) continue;
    const bool decays = p.tag.role != nn::ParamRole::kNorm && p.tag.role != nn::ParamRole::kBias;
    const bool router = p.tag.role == nn::ParamRole::kRouter;
    ops::adamw_(p.tensor, p.tensor.grad().contiguous(), state_[i].exp_avg, state_[i].exp_avg_sq,
                {.lr = lr * (router ? options_.router_lr_multiplier : 1.0),
                 .beta1 = options_.betas[0],
                 .beta2 = options_.betas[1],
                 .eps = options_.eps,
                 .weight_decay = decays ? options_.weight_decay : 0.0,
                 .step = num_steps_,
                 .grad_scale = grad_scale});
  }
}

void AdamW::zero_grad() {
  for (const auto& p : parameters_) {
    p.tensor.mutable_grad().reset();  // the next backward hands its buffer over instead of adding to zeros
  }
}

}  // namespace conclave::optim
