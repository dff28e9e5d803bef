// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace conclave::analyze {

struct LineSeries {
  enum class Style { kLine, kFaint, kDots };  // kDots: a line through marked points, for few of them
  std::string name = {};                      // stands at the end of the line; "" for none
  std::string colour = "c0";                  // class of the style sheet
  std::vector<double> x = {}, y = {};         // equally long, x rising; a y that is not finite leaves a gap
  Style style = Style::kLine;
};

struct LineChart {
  std::string title = {}, unit = {}, note = {};
  std::string x_name = "step";
  std::vector<LineSeries> series = {};
  std::optional<double> low = {}, high = {};  // fixed ends of the y axis; values outside are cut off
  std::optional<double> reference = {};       // a level to compare with
  std::string reference_name = {};
  double width = 520, height = 236;
};

// A figure with nice ticks, names at the ends of the lines, tooltips at the points, and a cross at the top
// edge for each value that is not finite. Long series are thinned to what the width shows, keeping every
// extreme.
std::string render_line_chart(const LineChart& chart);

// Centred mean over `window` neighbours; values that are not finite are left out of it.
std::vector<double> running_mean(const std::vector<double>& values, size_t window);

// The x axis' position of a value that `share` of the finite values do not exceed; nothing without any.
std::optional<double> quantile(std::vector<double> values, double share);

}  // namespace conclave::analyze
