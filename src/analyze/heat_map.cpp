// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/heat_map.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "conclave/analyze/format.h"
#include "conclave/analyze/svg.h"

namespace conclave::analyze {

namespace {

constexpr double kMapTop = 4, kMapBottom = 26;

// Every how many labels fit without touching.
size_t label_stride(const std::vector<std::string>& labels, double cell, double per_character) {
  size_t longest = 1;
  for (const auto& label : labels) longest = std::max(longest, label.size());
  const double need = per_character * static_cast<double>(longest) + 8;
  return std::max<size_t>(static_cast<size_t>(std::ceil(need / cell)), 1);
}

double row_label_width(const HeatMap& map) {
  size_t longest = map.row_name.size();
  for (const auto& row : map.rows) longest = std::max(longest, row.size());
  return std::min(14.0 + 6.2 * static_cast<double>(longest), 150.0);
}

}  // namespace

int ratio_level(double ratio, double limit) {
  if (std::isnan(ratio)) return -1;
  if (ratio <= 0) return 0;
  const double position = std::log2(ratio) / std::log2(limit);  // -1 to 1
  const int half = kHeatLevels / 2;
  return static_cast<int>(std::clamp<double>(std::lround(position * half), -half, half)) + half;
}

std::string render_heat_map(const HeatMap& map) {
  const double left = row_label_width(map), right = map.width - 8;
  const double height = kMapTop + map.row_height * static_cast<double>(map.rows.size()) + kMapBottom;
  const double cell = (right - left) / static_cast<double>(std::max<size_t>(map.columns.size(), 1));
  const double gap = cell > 6 ? 1.0 : 0.0;
  std::string body;
  const size_t row_stride = std::max<size_t>(static_cast<size_t>(std::ceil(11.0 / map.row_height)), 1);
  for (size_t r = 0; r < map.rows.size(); ++r) {
    const double y = kMapTop + map.row_height * static_cast<double>(r);
    const double middle = y + 0.5 * map.row_height + 3.6;
    if (r % row_stride == 0) body += svg_text(left - 7, middle, Anchor::kEnd, "tick", map.rows[r]);
    for (size_t c = 0; c < map.columns.size(); ++c) {
      const auto& value = map.cells.at(r * map.columns.size() + c);
      const double x = left + cell * static_cast<double>(c);
      const std::string level = value.level < 0 ? "none" : fmt::format("h{}", value.level);
      body += svg_rect(x, y, cell - gap, map.row_height - std::min(1.0, gap + 0.5), level, value.tooltip);
      if (map.cell_text && !value.text.empty()) {
        body += svg_text(x + 0.5 * (cell - gap), middle, Anchor::kMiddle,
                         value.level >= 0 ? fmt::format("cell t{}", value.level) : "cell", value.text);
      }
    }
  }
  const double base = height - kMapBottom + 13;
  const size_t stride = label_stride(map.columns, cell, 6.2);
  for (size_t c = 0; c < map.columns.size(); c += stride) {
    body +=
        svg_text(left + cell * (static_cast<double>(c) + 0.5), base, Anchor::kMiddle, "tick", map.columns[c]);
  }
  body += svg_text(left - 7, base, Anchor::kEnd, "tick name", map.column_name);
  return render_figure({.title = map.title,
                        .unit = map.unit,
                        .note = map.note,
                        .label = fmt::format("{}: {} by {}", map.title, map.row_name, map.column_name),
                        .width = map.width,
                        .height = height,
                        .body = std::move(body)});
}

std::string render_ratio_scale(double limit, const std::string& below, const std::string& even,
                               const std::string& above) {
  constexpr double kStep = 20, kHeight = 10, kSide = 84;
  std::string body = svg_text(kSide - 8, 9, Anchor::kEnd, "tick", below);
  for (int level = 0; level < kHeatLevels; ++level) {
    const double ratio = std::pow(limit, (level - kHeatLevels / 2) / static_cast<double>(kHeatLevels / 2));
    body += svg_rect(kSide + kStep * level, 0, kStep - 1, kHeight, fmt::format("h{}", level),
                     fmt::format("{}×", readable(ratio, 2)));
  }
  const double end = kSide + kStep * kHeatLevels;
  body += svg_text(kSide + 0.5 * kStep * kHeatLevels, 23, Anchor::kMiddle, "tick", even);
  body += svg_text(end + 8, 9, Anchor::kStart, "tick", above);
  return fmt::format(
      "<div class=\"scale\"><svg role=\"img\" aria-label=\"colour scale\" viewBox=\"0 0 {} "
      "28\">{}</svg></div>\n",
      coordinate(end + kSide), body);
}

}  // namespace conclave::analyze
