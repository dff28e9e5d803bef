// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/line_chart.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "conclave/analyze/axis.h"
#include "conclave/analyze/format.h"
#include "conclave/analyze/svg.h"

namespace conclave::analyze {

namespace {

constexpr double kLeft = 52, kTop = 12, kBottom = 24, kLabelGap = 13;
constexpr size_t kMaxPoints = 480, kMaxTooltips = 120;

struct EndLabel {
  double y = 0;
  std::string text = {}, colour = {};
};

// Indices to draw: all, or the extremes of equal buckets.
std::vector<size_t> visible_indices(const std::vector<double>& y) {
  std::vector<size_t> all(y.size());
  std::iota(all.begin(), all.end(), size_t{0});
  if (y.size() <= kMaxPoints) return all;
  std::vector<size_t> kept;
  const size_t buckets = kMaxPoints / 2;
  for (size_t b = 0; b < buckets; ++b) {
    const size_t begin = b * y.size() / buckets, end = (b + 1) * y.size() / buckets;
    size_t low = begin, high = begin;
    bool gap = false;
    for (size_t i = begin; i < end; ++i) {
      gap = gap || !std::isfinite(y[i]);
      if (!(y[i] >= y[low])) low = i;
      if (!(y[i] <= y[high])) high = i;
    }
    if (gap) {
      for (size_t i = begin; i < end; ++i) kept.push_back(i);
      continue;
    }
    kept.push_back(std::min(low, high));
    if (low != high) kept.push_back(std::max(low, high));
  }
  if (kept.back() != y.size() - 1) kept.push_back(y.size() - 1);
  return kept;
}

double label_width(const std::vector<LineSeries>& series, const std::string& reference) {
  size_t longest = std::max<size_t>(reference.size(), 6);
  for (const auto& s : series) longest = std::max(longest, s.name.size());
  return std::min(14.0 + 6.4 * static_cast<double>(longest), 190.0);
}

Range y_range(const LineChart& chart) {
  std::vector<double> values;
  for (const auto& s : chart.series) values.insert(values.end(), s.y.begin(), s.y.end());
  if (chart.reference) values.push_back(*chart.reference);
  for (auto& value : values) {
    if (chart.low) value = std::max(value, *chart.low);
    if (chart.high) value = std::min(value, *chart.high);
  }
  Range range = range_of(values, 0.06);
  if (chart.low) range.low = *chart.low;
  if (chart.high) range.high = *chart.high;
  if (!(range.high > range.low)) range.high = range.low + 1.0;
  return range;
}

std::string render_axes(const LineChart& chart, const Scale& x, const Scale& y) {
  std::string body;
  const auto y_ticks = nice_ticks(y.low, y.high, 4), x_ticks = nice_ticks(x.low, x.high, 5);
  const auto y_labels = tick_labels(y_ticks), x_labels = tick_labels(x_ticks);
  for (size_t i = 0; i < y_ticks.size(); ++i) {
    const double at = y(y_ticks[i]);
    body += svg_line(x.pixel_low, at, x.pixel_high, at, "grid");
    body += svg_text(x.pixel_low - 7, at + 3.6, Anchor::kEnd, "tick", y_labels[i]);
  }
  const double base = y.pixel_low;
  body += svg_line(x.pixel_low, base, x.pixel_high, base, "axis");
  for (size_t i = 0; i < x_ticks.size(); ++i) {
    body += svg_line(x(x_ticks[i]), base, x(x_ticks[i]), base + 4, "axis");
    body += svg_text(x(x_ticks[i]), base + 16, Anchor::kMiddle, "tick", x_labels[i]);
  }
  return body + svg_text(x.pixel_low - 7, base + 16, Anchor::kEnd, "tick name", chart.x_name);
}

// The paths of one series, in pixels of the whole picture.
std::string render_series(const LineSeries& s, const Scale& x, const Scale& y) {
  std::string body;
  Points run;
  const char* kind = s.style == LineSeries::Style::kFaint ? "faint" : "line";
  const auto flush = [&] {
    if (run.size() == 1) body += svg_circle(run[0].first, run[0].second, 2, "dot " + s.colour);
    if (run.size() > 1) body += svg_path(run, fmt::format("{} {}", kind, s.colour));
    run.clear();
  };
  for (const size_t i : visible_indices(s.y)) {
    if (std::isfinite(s.y[i])) {
      run.emplace_back(x(s.x[i]), y(s.y[i]));
    } else {
      flush();
    }
  }
  flush();
  return body;
}

std::string render_marks(const LineChart& chart, const LineSeries& s, const Scale& x, const Scale& y) {
  if (s.style == LineSeries::Style::kFaint) return "";
  std::string body;
  const size_t stride = (s.y.size() + kMaxTooltips - 1) / kMaxTooltips;
  const bool dots = s.style == LineSeries::Style::kDots && s.y.size() <= kMaxTooltips;
  const auto tip = [&](size_t i) {
    return fmt::format("{}{} {}: {}", s.name.empty() ? "" : s.name + ", ", chart.x_name,
                       grouped(static_cast<int64_t>(s.x[i])), readable(s.y[i], 5));
  };
  for (size_t i = 0; i < s.y.size(); ++i) {
    if (!std::isfinite(s.y[i])) {
      body += fmt::format(
          "<text class=\"nan\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">×<title>{}</title></text>",
          coordinate(x(s.x[i])), coordinate(kTop + 4), escape(tip(i)));
    } else if ((i % stride == 0 || i + 1 == s.y.size()) && s.y[i] >= y.low && s.y[i] <= y.high) {
      if (dots) body += svg_circle(x(s.x[i]), y(s.y[i]), 2.4, "dot " + s.colour);
      body += svg_circle(x(s.x[i]), y(s.y[i]), 6, "hit " + s.colour, tip(i));
    }
  }
  return body;
}

// Names at the lines' ends, moved apart where they would overlap.
std::string render_labels(std::vector<EndLabel> labels, double x, double top, double bottom) {
  std::stable_sort(labels.begin(), labels.end(), [](const auto& a, const auto& b) { return a.y < b.y; });
  for (size_t i = 1; i < labels.size(); ++i) labels[i].y = std::max(labels[i].y, labels[i - 1].y + kLabelGap);
  double limit = bottom;
  for (size_t i = labels.size(); i-- > 0;) {
    labels[i].y = std::max(std::min(labels[i].y, limit), top);
    limit = labels[i].y - kLabelGap;
  }
  std::string body;
  for (const auto& label : labels) {
    body += svg_text(x, label.y + 3.8, Anchor::kStart, "end " + label.colour, label.text);
  }
  return body;
}

std::vector<EndLabel> end_labels(const LineChart& chart, const Scale& y) {
  std::vector<EndLabel> labels;
  for (const auto& s : chart.series) {
    if (s.style == LineSeries::Style::kFaint) continue;
    size_t last = s.y.size();
    while (last > 0 && !std::isfinite(s.y[last - 1])) --last;
    if (last == 0) continue;
    const double value = s.y[last - 1];
    labels.push_back({std::clamp(y(value), y.pixel_high, y.pixel_low),
                      s.name.empty() ? readable(value, 4) : s.name, s.colour});
  }
  if (chart.reference) labels.push_back({y(*chart.reference), chart.reference_name, "muted"});
  return labels;
}

}  // namespace

std::string render_line_chart(const LineChart& chart) {
  const double right = chart.width - label_width(chart.series, chart.reference_name);
  const Range y_values = y_range(chart);
  std::vector<double> all_x;
  for (const auto& s : chart.series) all_x.insert(all_x.end(), s.x.begin(), s.x.end());
  Range x_values = range_of(all_x, 0.0);
  if (x_values.low > 0 && x_values.low < 0.2 * x_values.high) x_values.low = 0;
  const Scale x{x_values.low, x_values.high, kLeft, right};
  const Scale y{y_values.low, y_values.high, chart.height - kBottom, kTop};
  std::string body = render_axes(chart, x, y);
  // An inner picture cuts off what lies outside the axes.
  body += fmt::format("<svg x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\" viewBox=\"{0} {1} {2} {3}\">",
                      coordinate(kLeft - 3), coordinate(kTop - 3), coordinate(right - kLeft + 6),
                      coordinate(chart.height - kBottom - kTop + 6));
  if (chart.reference) body += svg_line(kLeft, y(*chart.reference), right, y(*chart.reference), "reference");
  for (const auto& s : chart.series) body += render_series(s, x, y);
  body += "</svg>";
  for (const auto& s : chart.series) body += render_marks(chart, s, x, y);
  body += render_labels(end_labels(chart, y), right + 10, kTop, chart.height - kBottom - 6);
  return render_figure({.title = chart.title,
                        .unit = chart.unit,
                        .note = chart.note,
                        .label = fmt::format("{} over {}", chart.title, chart.x_name),
                        .width = chart.width,
                        .height = chart.height,
                        .body = std::move(body)});
}

std::vector<double> running_mean(const std::vector<double>& values, size_t window) {
  std::vector<double> result(values.size());
  const size_t half = window / 2;
  for (size_t i = 0; i < values.size(); ++i) {
    // At the steep start the same reach on both sides; at the end all of the left, so that it stays calm.
    const size_t left = std::min(half, i), right = std::min({half, left, values.size() - 1 - i});
    double sum = 0;
    size_t count = 0;
    for (size_t j = i - left; j <= i + right; ++j) {
      if (!std::isfinite(values[j])) continue;
      sum += values[j];
      ++count;
    }
    result[i] = count > 0 && std::isfinite(values[i]) ? sum / static_cast<double>(count) : values[i];
  }
  return result;
}

std::optional<double> quantile(std::vector<double> values, double share) {
  values.erase(std::remove_if(values.begin(), values.end(), [](double v) { return !std::isfinite(v); }),
               values.end());
  if (values.empty()) return std::nullopt;
  const auto at = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

}  // namespace conclave::analyze
