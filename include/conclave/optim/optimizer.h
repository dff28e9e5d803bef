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
  config::Value lr = 1.5e-3;  // peak
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
  double router_lr_multiplier = 1.0;
  void fields(config::Fields& f);
};

// Where a run stands at the end of a step.
struct RunPosition {
  double progress = 0;  // [0, 1]
  int64_t step = 0;     // 1 for the first one
  int64_t num_steps = 1;
};

// Learning rate as a function of the run's progress in [0, 1], so that a run bounded by time ends its
// schedule too. With s the progress after the warm-up as a part of what is left then:
//   constant: peak. linear: min + (peak - min) (1 - s). cosine: min + (peak - min) (1 + cos(pi s)) / 2.
//   wsd: peak until the last decay_fraction of the run, then linearly to min.
//   inverse_sqrt: max(min, peak sqrt(w / progress)), w the end of the warm-up, at least one percent of the
//   run.
struct LrSchedulerOptions {
  ScheduleType type = ScheduleType::kCosine;
  double warmup_fraction = 0.03;
  std::optional<int64_t> warmup_iters = {};  // in steps, whatever the clock says; replaces warmup_fraction
  double min_lr = 0.0;
  double decay_fraction = 0.2;  // wsd only: the last part of the run, in which the rate falls
  void fields(config::Fields& f);

  // The rate of the step that ends at `position`, so that the first step of a warm-up already moves.
  double at(const RunPosition& position, double peak_lr) const;
  // The same where the warm-up is a fraction.
  double at(double progress, double peak_lr) const;

 private:
  double after_warmup(double progress, double peak_lr, double warmup) const;
};

// AdamW over tagged parameters. Weight decay acts on matrices, embeddings, head, router and experts; never on
// norms and biases. The router's rate is multiplied by router_lr_multiplier. A parameter that requires no
// gradient at construction is frozen: it has no moments and is never touched.
class AdamW {
 public:
  AdamW(std::vector<nn::TaggedParameter> parameters, const OptimizerOptions& options);

  // One update with every gradient multiplied by grad_scale (clipping).
  void step(double lr, double grad_scale);
  void zero_grad();

  struct State {
    std::string name;
    at::Tensor parameter, exp_avg, exp_avg_sq;  // moments undefined: frozen
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
