// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/value.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "conclave/config/fields.h"

namespace conclave::config {

void Schedule::fields(Fields& f) {
  f("schedule", kind,
    {{"constant", Kind::kConstant},
     {"linear", Kind::kLinear},
     {"cosine", Kind::kCosine},
     {"exp", Kind::kExp},
     {"multistep", Kind::kMultistep}},
    "Shape of the change.")
      .required();
  const auto interpolates = [this] { return kind != Kind::kMultistep; };
  const auto stepped = [this] { return kind == Kind::kMultistep; };
  f("from", from, "Value until start_step (and the value of `constant`).")
      .only_if(interpolates, "the schedule is multistep");
  f("to", to, "Value from end_step on.").only_if(interpolates, "the schedule is multistep");
  f("start_step", start_step, "Optimizer step at which the change begins.")
      .min(0)
      .only_if(interpolates, "the schedule is multistep");
  f("end_step", end_step, "Optimizer step at which the change ends.")
      .min(0)
      .only_if(interpolates, "the schedule is multistep");
  f("values", values, "multistep: one value more than steps.")
      .only_if(stepped, "the schedule is not multistep");
  f("steps", steps, "multistep: increasing optimizer steps.")
      .only_if(stepped, "the schedule is not multistep");
  f.check([this](Check& check) {
    if (kind == Kind::kMultistep) {
      if (values.size() != steps.size() + 1) check.error("values", "needs one value more than steps", "");
      if (!std::is_sorted(steps.begin(), steps.end())) check.error("steps", "must increase", "");
    } else if (kind != Kind::kConstant && end_step <= start_step) {
      check.error("end_step", "must be greater than start_step", "");
    }
    if (kind == Kind::kExp && !(from > 0 && to > 0)) {
      check.error("from", "an exp schedule needs from > 0 and to > 0", "use linear to reach 0");
    }
  });
}

double Schedule::at(int64_t step) const {
  if (kind == Kind::kConstant) return from;
  if (kind == Kind::kMultistep) {
    const auto passed = std::upper_bound(steps.begin(), steps.end(), step) - steps.begin();
    return values[static_cast<size_t>(passed)];
  }
  if (step <= start_step) return from;
  if (step >= end_step) return to;
  const double part = static_cast<double>(step - start_step) / static_cast<double>(end_step - start_step);
  if (kind == Kind::kExp) return from * std::pow(to / from, part);
  if (kind == Kind::kLinear) return from + (to - from) * part;
  return to + (from - to) * 0.5 * (1.0 + std::cos(std::numbers::pi * part));
}

namespace {
std::vector<double> extremes(const Schedule& s) {
  if (s.kind == Schedule::Kind::kMultistep) return s.values.empty() ? std::vector<double>{0.0} : s.values;
  if (s.kind == Schedule::Kind::kConstant) return {s.from};
  return {s.from, s.to};
}
}  // namespace

double Value::smallest() const {
  const auto v = extremes(schedule_);
  return *std::min_element(v.begin(), v.end());
}
double Value::largest() const {
  const auto v = extremes(schedule_);
  return *std::max_element(v.begin(), v.end());
}

}  // namespace conclave::config
