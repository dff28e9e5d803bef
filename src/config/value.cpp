// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/value.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include <fmt/format.h>

#include "conclave/config/fields.h"
#include "conclave/core/error.h"

namespace conclave::config {

namespace {

void check_schedule(const Schedule& s, Check& check) {
  const auto needs = [&](const char* key) {
    if (!check.is_set(key)) check.error(key, "this schedule needs it", "write it into the schedule object");
    return check.is_set(key);
  };
  using Kind = Schedule::Kind;
  if (s.kind == Kind::kMultistep) {
    if (!needs("values") || !needs("steps")) return;
    if (s.values.size() != s.steps.size() + 1)
      check.error("values", fmt::format("{} values for {} steps", s.values.size(), s.steps.size()),
                  "write one value more than steps");
    if (std::adjacent_find(s.steps.begin(), s.steps.end(), std::greater_equal<>()) != s.steps.end())
      check.error("steps", "the steps must increase", "write each step once, in order");
    return;
  }
  if (!needs("from") || s.kind == Kind::kConstant) return;
  if (!needs("to") || !needs("end_step")) return;
  if (s.end_step <= s.start_step)
    check.error("end_step", fmt::format("{} is not after start_step ({})", s.end_step, s.start_step),
                "write a greater end_step");
  if (s.kind == Kind::kExp && !(s.from > 0 && s.to > 0))
    check.error(s.from > 0 ? "to" : "from", "an exp schedule needs from > 0 and to > 0",
                "use linear to reach 0");
}

}  // namespace

void Schedule::fields(Fields& f) {
  f("schedule", kind,
    {{"constant", Kind::kConstant},
     {"linear", Kind::kLinear},
     {"cosine", Kind::kCosine},
     {"exp", Kind::kExp},
     {"multistep", Kind::kMultistep}},
    "Shape of the change.")
      .required();
  const auto not_stepped = [this] { return kind != Kind::kMultistep; };
  const auto interpolates = [this] { return kind != Kind::kMultistep && kind != Kind::kConstant; };
  const auto stepped = [this] { return kind == Kind::kMultistep; };
  f("from", from, "Value until start_step (and the value of `constant`).")
      .only_if(not_stepped, "the schedule is multistep");
  f("to", to, "Value from end_step on.").only_if(interpolates, "the schedule has no ramp");
  f("start_step", start_step, "Optimizer step at which the change begins.")
      .min(0)
      .only_if(interpolates, "the schedule has no ramp");
  f("end_step", end_step, "Optimizer step at which the change ends.")
      .min(0)
      .only_if(interpolates, "the schedule has no ramp");
  f("values", values, "multistep: one value more than steps.")
      .only_if(stepped, "the schedule is not multistep");
  f("steps", steps, "multistep: increasing optimizer steps.")
      .min(0)
      .only_if(stepped, "the schedule is not multistep");
  f.check([this](Check& check) { check_schedule(*this, check); });
}

double Schedule::at(int64_t step) const {
  if (kind == Kind::kConstant) return from;
  if (kind == Kind::kMultistep) {
    CONCLAVE_CHECK(values.size() == steps.size() + 1, "a multistep schedule needs one value more than steps");
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
