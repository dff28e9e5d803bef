// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "conclave/config/fields.h"
#include "conclave/nn/module.h"

namespace conclave::optim {

enum class OptimizerType { kAdamW };
enum class ScheduleType { kConstant, kLinear, kCosine, kWsd, kInverseSqrt };

struct OptimizerOptions {
  OptimizerType type = OptimizerType::kAdamW;
  double lr = 1.5e-3;
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
  double router_lr_multiplier = 1.0;
  void fields(config::Fields& f);
};

// Learning rate as a function of the run's progress in [0, 1], so that a run bounded by time ends its
// schedule too.
struct LrSchedulerOptions {
  ScheduleType type = ScheduleType::kCosine;
  double warmup_fraction = 0.03;
  double min_lr = 0.0;
  double decay_fraction = 0.2;  // wsd only: the last part of the run, in which the rate falls
  void fields(config::Fields& f);

  // peak_lr * shape(progress); the first step of a warm-up already moves.
  double at(double progress, double peak_lr) const;
};

// AdamW over tagged parameters. Weight decay acts on matrices, embeddings, head, router and experts; never on
// norms and biases. The router's rate is multiplied by router_lr_multiplier.
class AdamW {
 public:
  AdamW(std::vector<nn::TaggedParameter> parameters, const OptimizerOptions& options);

  // Global norm of all gradients; a parameter without a gradient counts as zero.
  double gradient_norm() const;
  // One update with every gradient multiplied by grad_scale (clipping).
  void step(double lr, double grad_scale);
  void zero_grad();

  struct State {
    std::string name;
    at::Tensor parameter, exp_avg, exp_avg_sq;
  };
  const std::vector<State>& state() const { return state_; }
  int64_t num_steps() const { return num_steps_; }
  void set_num_steps(int64_t steps) { num_steps_ = steps; }

 private:
  OptimizerOptions options_;
  std::vector<nn::TaggedParameter> parameters_;
  std::vector<State> state_;
  int64_t num_steps_ = 0;
};

}  // namespace conclave::optim
