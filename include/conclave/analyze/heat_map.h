// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

namespace conclave::analyze {

// How values become colours: in steps, so that a level can be read back from the scale. Ratios are shown by
// their binary logarithm around 1 (blue below, orange above; told apart by all common kinds of colour
// vision).
inline constexpr int kHeatLevels = 11;
// 0 to 10; 5 is a ratio of 1, the ends are `limit` and 1 / limit and beyond. -1 for NaN.
int ratio_level(double ratio, double limit);

struct HeatCell {
  int level = -1;         // -1: no value
  std::string text = {};  // inside the cell, where cells are wide enough
  std::string tooltip = {};
};

struct HeatMap {
  std::string title = {}, unit = {}, note = {};
  std::string row_name = {}, column_name = {};
  std::vector<std::string> rows = {}, columns = {};
  std::vector<HeatCell> cells = {};  // row-major
  double width = 520;
  double row_height = 17;
  bool cell_text = false;
};
std::string render_heat_map(const HeatMap& map);

// The colour scale of ratio_level as a small picture.
std::string render_ratio_scale(double limit, const std::string& below, const std::string& even,
                               const std::string& above);

}  // namespace conclave::analyze
