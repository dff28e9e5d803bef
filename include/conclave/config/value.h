// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace conclave::config {

class Fields;

// A schedule object of the YAML file: a pure function of the optimizer step (0-based).
//   linear, cosine, exp: `from` until start_step, `to` from end_step on, in between a straight line, half a
//   cosine wave, or a geometric interpolation. multistep: values[i] for steps[i-1] <= step < steps[i], so one
//   value more than steps.
struct Schedule {
  enum class Kind { kConstant, kLinear, kCosine, kExp, kMultistep };
  Kind kind = Kind::kConstant;
  double from = 0.0;
  double to = 0.0;
  int64_t start_step = 0;
  int64_t end_step = 0;
  std::vector<double> values = {};
  std::vector<int64_t> steps = {};

  void fields(Fields& f);
  double at(int64_t step) const;
};

// A number that may change during training. Implicit from double, so that plain structs read naturally:
// `LoadBalancingOptions{.weight = 0.01}`.
class Value {
 public:
  Value(double constant = 0.0) { schedule_.from = constant; }  // NOLINT: implicit on purpose
  explicit Value(Schedule schedule) : schedule_(std::move(schedule)) {}

  double at(int64_t step) const { return schedule_.at(step); }
  bool is_constant() const { return schedule_.kind == Schedule::Kind::kConstant; }
  // Smallest and largest value that any step can see, for range checks.
  double smallest() const;
  double largest() const;
  const Schedule& schedule() const { return schedule_; }

 private:
  Schedule schedule_;
};

}  // namespace conclave::config
