// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/format.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "conclave/analyze/axis.h"
#include "conclave/analyze/heat_map.h"
#include "conclave/analyze/line_chart.h"
#include "conclave/analyze/svg.h"
#include "page.h"

namespace {

using namespace conclave::analyze;
using Labels = std::vector<std::string>;
using Numbers = std::vector<double>;

TEST(Format, EscapingKeepsTextAndTurnsWhatXmlCannotHoldIntoSigns) {
  EXPECT_EQ(escape("a<b>&\"'c\n\tä€😀"), "a&lt;b&gt;&amp;&quot;&#39;c\n\tä€😀");
  EXPECT_EQ(escape(std::string_view("\0\x1f\x7f", 3)), "\u2400\u241f\u2421");
  EXPECT_EQ(escape("\xc0\xaf|\xf5|\xed\xa0\x80|\xe2\x82"),
            "\ufffd\ufffd|\ufffd|\ufffd\ufffd\ufffd|\ufffd\ufffd");
}

TEST(Format, TokensAreReadable) {
  EXPECT_EQ(visible_token(" a\n\t"), "␣a↵⇥");
  EXPECT_EQ(visible_token(""), "‹document›");
  EXPECT_EQ(visible_token("\xe2"), "\\xE2");
  EXPECT_EQ(visible_token("é\x01"), "é\u2401");
}

TEST(Format, NumbersForPeople) {
  EXPECT_EQ(readable(4.31249), "4.312");
  EXPECT_EQ(readable(-0.0123456), "-0.01235");
  EXPECT_EQ(readable(1234567.0), "1.23×10⁶");
  EXPECT_EQ(readable(9.999e-8), "1.00×10⁻⁷");
  EXPECT_EQ(readable(0.0), "0");
  EXPECT_EQ(readable(NAN), "not finite");
  EXPECT_EQ(grouped(16384000), "16,384,000");
  EXPECT_EQ(grouped(-1234), "-1,234");
  EXPECT_EQ(grouped(-123), "-123");
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(abbreviated(941), "941");
  EXPECT_EQ(abbreviated(48210), "48.2 k");
  EXPECT_EQ(abbreviated(999999), "1.00 M");
  EXPECT_EQ(percent(0.0), "0 %");
  EXPECT_EQ(percent(0.0123), "1.2 %");
  EXPECT_EQ(percent(0.5), "50 %");
  EXPECT_EQ(duration(318), "5 min 18 s");
  EXPECT_EQ(duration(11070), "3 h 04 min");
  EXPECT_EQ(duration(-1), "not known");
  EXPECT_EQ(data_element(1.0 / 3, "0.33"), "<data value=\"0.3333333333333333\">0.33</data>");
  EXPECT_EQ(coordinate(-0.001), "0");
  EXPECT_EQ(coordinate(12.50), "12.5");
  EXPECT_EQ(coordinate(1e9), "1000000000");
}

TEST(Axis, TicksAreNiceAndInside) {
  EXPECT_EQ(nice_ticks(0, 10, 5), (Numbers{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(tick_labels(nice_ticks(1.93, 2.61, 4)), (Labels{"2.0", "2.2", "2.4", "2.6"}));
  EXPECT_EQ(tick_labels(nice_ticks(-0.3, 0.3, 3)), (Labels{"-0.2", "0", "0.2"}));
  EXPECT_EQ(tick_labels(nice_ticks(0, 30000, 3)), (Labels{"0", "10k", "20k", "30k"}));
  EXPECT_EQ(tick_labels(nice_ticks(0, 0.0015, 3)), (Labels{"0", "0.5×10⁻³", "1.0×10⁻³", "1.5×10⁻³"}));
  EXPECT_EQ(nice_ticks(3, 3, 4), Numbers{3});
  EXPECT_TRUE(nice_ticks(0, std::numeric_limits<double>::infinity(), 4).empty());
  EXPECT_TRUE(nice_ticks(NAN, 1, 4).empty());
  for (const double size : {1e-300, 1e-9, 0.7, 13.0, 8.1e6, 1e300}) {
    const auto ticks = nice_ticks(0.1 * size, size, 4);
    EXPECT_GE(ticks.size(), 2u) << size;
    EXPECT_LE(ticks.size(), 9u) << size;
    for (const double tick : ticks) EXPECT_TRUE(tick >= 0.0999 * size && tick <= 1.0001 * size) << size;
  }
}

TEST(Axis, RangesOfNothingOfOneValueAndOfConstants) {
  EXPECT_EQ(range_of({}, 0.1).high, 1.0);
  EXPECT_EQ(range_of(Numbers{NAN}, 0.1).low, 0.0);
  const auto one = range_of(Numbers{5, NAN, 5}, 0.1);
  EXPECT_LT(one.low, 5);
  EXPECT_GT(one.high, 5);
  EXPECT_EQ((Scale{2, 2, 0, 100})(7.0), 50.0);
}

TEST(LineChart, LongSeriesAreThinnedButKeepTheirExtremes) {
  LineSeries series{.name = "noisy"};
  for (int i = 0; i < 20000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i == 13337 ? 77.0 : std::sin(0.01 * i));
  }
  const auto chart = render_line_chart({.title = "t", .series = {series}});
  EXPECT_LT(chart.size(), 40000u);
  const auto low_end = chart.find("M");
  ASSERT_NE(low_end, std::string::npos);
  EXPECT_TRUE(contains(chart, ">80<") || contains(chart, ">60<")) << "the axis reaches to the peak";
}

TEST(LineChart, RunningMeanIgnoresGapsAndKeepsConstants) {
  EXPECT_EQ(running_mean({4, 4, NAN, 4, 4}, 3)[1], 4.0);
  EXPECT_TRUE(std::isnan(running_mean({4, NAN, 4}, 3)[1]));
  EXPECT_EQ(running_mean({1, 2, 6}, 3), (Numbers{1, 3, 4}))
      << "the start is not pulled inwards, the end looks back";
  EXPECT_EQ(running_mean({}, 5), Numbers{});
  EXPECT_FALSE(quantile({NAN}, 0.5).has_value());
  EXPECT_EQ(quantile({3, NAN, 1, 2}, 0.5), 2.0);
}

TEST(HeatMap, LevelsAreSymmetricAroundTheFairShare) {
  EXPECT_EQ(ratio_level(1.0, 2.0), 5);
  EXPECT_EQ(ratio_level(2.0, 2.0), 10);
  EXPECT_EQ(ratio_level(0.5, 2.0), 0);
  EXPECT_EQ(ratio_level(100.0, 2.0), 10);
  EXPECT_EQ(ratio_level(0.0, 2.0), 0);
  EXPECT_EQ(ratio_level(NAN, 2.0), -1);
  for (const double r : {1.05, 1.2, 1.4, 1.7})
    EXPECT_EQ(ratio_level(r, 2.0) - 5, 5 - ratio_level(1 / r, 2.0));
}

}  // namespace
