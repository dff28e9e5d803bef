// SPDX-License-Identifier: Apache-2.0
#include "config/sample.h"

using namespace config_sample;

namespace {

struct Holder {
  Value rate = 0.25;
  std::optional<Value> noise = {};
  void fields(Fields& f) {
    f("rate", rate, "Rate.");
    f("noise", noise, "Noise.").min(0);
  }
};

Value rate_of(const std::string& yaml) {
  return read<Holder>("rate: " + yaml).rate;
}

TEST(Schedules, a_plain_number_is_the_same_at_every_step) {
  const Value value = rate_of("1.5e-3");
  EXPECT_TRUE(value.is_constant());
  EXPECT_EQ(value.at(0), 1.5e-3);
  EXPECT_EQ(value.at(INT64_MAX), 1.5e-3);
  EXPECT_EQ(rate_of("{schedule: constant, from: 2}").at(5), 2.0);
  EXPECT_TRUE(rate_of("{schedule: constant, from: 2}").is_constant());
}

TEST(Schedules, ramps_hold_their_ends_and_follow_their_formula_between_them) {
  const Value linear = rate_of("{schedule: linear, from: 3.0, to: 1.0, start_step: 10, end_step: 30}");
  EXPECT_EQ(linear.at(0), 3.0);
  EXPECT_EQ(linear.at(10), 3.0);
  EXPECT_NEAR(linear.at(15), 2.5, 1e-15);
  EXPECT_EQ(linear.at(30), 1.0);
  EXPECT_EQ(linear.at(1000), 1.0);
  const Value cosine = rate_of("{schedule: cosine, from: 3.0, to: 1.0, end_step: 12}");
  EXPECT_EQ(cosine.at(0), 3.0);
  EXPECT_NEAR(cosine.at(4), 1.0 + 2.0 * 0.75, 1e-14);  // cos(pi / 3) = 1/2
  EXPECT_NEAR(cosine.at(6), 2.0, 1e-14);
  EXPECT_EQ(cosine.at(12), 1.0);
  const Value exp = rate_of("{schedule: exp, from: 8.0, to: 1.0, end_step: 3}");
  EXPECT_EQ(exp.at(0), 8.0);
  EXPECT_NEAR(exp.at(1), 4.0, 1e-14);
  EXPECT_NEAR(exp.at(2), 2.0, 1e-14);
  EXPECT_EQ(exp.at(3), 1.0);
}

TEST(Schedules, multistep_changes_at_its_steps) {
  const Value value = rate_of("{schedule: multistep, values: [0.3, 0.2, 0.1], steps: [5, 9]}");
  EXPECT_EQ(value.at(4), 0.3);
  EXPECT_EQ(value.at(5), 0.2);
  EXPECT_EQ(value.at(8), 0.2);
  EXPECT_EQ(value.at(9), 0.1);
  EXPECT_EQ(rate_of("{schedule: multistep, values: [7], steps: []}").at(3), 7.0);
}

TEST(Schedules, smallest_and_largest_bound_every_step) {
  for (const char* yaml :
       {"4", "{schedule: linear, from: -3, to: 2, start_step: 3, end_step: 17}",
        "{schedule: cosine, from: 3, to: 1, end_step: 17}", "{schedule: exp, from: 0.1, to: 5, end_step: 9}",
        "{schedule: multistep, values: [2, -7, 5], steps: [5, 9]}"}) {
    const Value value = rate_of(yaml);
    double low = value.at(0), high = value.at(0);
    for (int64_t step = 0; step < 25; ++step) {
      low = std::min(low, value.at(step));
      high = std::max(high, value.at(step));
    }
    EXPECT_EQ(value.smallest(), low) << yaml;
    EXPECT_EQ(value.largest(), high) << yaml;
  }
}

TEST(Schedules, a_schedule_is_written_back_as_it_was) {
  for (const char* text :
       {"rate: 0.25\nnoise: null\n", "rate: 0.25\nnoise: 1.0e-08\n",
        "rate:\n  schedule: cosine\n  from: 3.0\n  to: 1.0\n  start_step: 2\n  end_step: 12\nnoise: null\n",
        "rate: 1.0\nnoise:\n  schedule: multistep\n  values: [0.3, 0.2]\n  steps: [5]\n"}) {
    Holder holder = read<Holder>(text);
    EXPECT_EQ(dump(holder), text);
  }
}

TEST(Schedules, incomplete_and_contradictory_schedules_are_refused) {
  const std::pair<const char*, const char*> cases[] = {
      {"{schedule: linear, to: 1, end_step: 3}", "a.yaml:1:7: error: rate.from: this schedule needs it"},
      {"{schedule: linear, from: 1, end_step: 3}", "a.yaml:1:7: error: rate.to: this schedule needs it"},
      {"{schedule: linear, from: 1, to: 2}", "a.yaml:1:7: error: rate.end_step: this schedule needs it"},
      {"{schedule: constant}", "a.yaml:1:7: error: rate.from: this schedule needs it"},
      {"{schedule: multistep, steps: [1]}", "a.yaml:1:7: error: rate.values: this schedule needs it"},
      {"{schedule: multistep, values: [1]}", "a.yaml:1:7: error: rate.steps: this schedule needs it"},
      {"{from: 1, to: 2, end_step: 3}", "a.yaml:1:7: error: rate.schedule is missing"},
      {"{schedule: linear, from: 1, to: 2, start_step: 5, end_step: 5}",
       "a.yaml:1:67: error: rate.end_step: 5 is not after start_step (5)"},
      {"{schedule: exp, from: 1, to: 0, end_step: 5}",
       "a.yaml:1:36: error: rate.to: an exp schedule needs from > 0 and to > 0"},
      {"{schedule: multistep, values: [1, 2], steps: [3, 4]}",
       "a.yaml:1:37: error: rate.values: 2 values for 2 steps"},
      {"{schedule: multistep, values: [1, 2, 3], steps: [4, 4]}",
       "a.yaml:1:55: error: rate.steps: the steps must increase"},
      {"{schedule: multistep, values: [1, 2], steps: [-4]}",
       "a.yaml:1:53: error: rate.steps.0: -4 is out of range (>= 0)"},
      {"{schedule: linear, from: 1, to: 2, end_step: 5, values: [1]}",
       "a.yaml:1:55: error: rate.values has no effect here: the schedule is not multistep"},
      {"{schedule: constant, from: 1, to: 2}",
       "a.yaml:1:37: error: rate.to has no effect here: the schedule has no ramp"},
      {"{schedule: multistep, from: 1, values: [1], steps: []}",
       "a.yaml:1:29: error: rate.from has no effect here: the schedule is multistep"},
      {"{schedule: linaer, from: 1, to: 2, end_step: 5}",
       "a.yaml:1:18: error: rate.schedule: unknown value 'linaer'"},
      {"{schedule: linear, from: 1, to: 2, end: 5}", "a.yaml:1:42: error: unknown key 'end' in rate"},
  };
  for (const auto& [yaml, part] : cases) expect_part(errors_of(std::string("rate: ") + yaml, Holder{}), part);
}

TEST(Schedules, a_multistep_of_the_wrong_size_built_by_a_program_is_an_error) {
  EXPECT_THROW(Value(Schedule{.kind = Schedule::Kind::kMultistep}).at(0), conclave::Error);
}

}  // namespace
