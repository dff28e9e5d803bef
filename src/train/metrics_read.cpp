// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/json_reader.h"
#include "conclave/train/metrics_lines.h"

namespace conclave::train {

namespace {

MetricsLine parse_metrics_line(std::string_view text, const std::string& place) {
  const Json json = parse_json(text, place, {.depth = 1});
  const JsonReader root(json, place);
  MetricsLine line{.step = static_cast<int64_t>(root.at("step").count()), .time = root.at("time").number()};
  for (const auto& [name, value] : root.members()) {
    if (name == "step" || name == "time") continue;
    line.metrics.push_back(
        {name, value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.number()});
  }
  return line;
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

std::string render_metrics_line(int64_t step, double wall_time, std::span<const Metric> metrics) {
  const auto refuse = [step](const std::string& problem) {
    throw Error(fmt::format("cannot write the metrics of step {}: {}", step, problem));
  };
  if (step < 0) refuse("the step is negative");
  if (!std::isfinite(wall_time)) refuse("the time is not finite");
  std::string line = fmt::format(R"({{"step":{},"time":{})", step, json_number(wall_time));
  std::set<std::string_view> names{"step", "time"};
  for (const auto& metric : metrics) {
    if (metric.name.empty()) refuse("a metric has no name");
    if (!names.insert(metric.name).second)
      refuse(fmt::format("the name '{}' stands twice or is taken", metric.name));
    line += fmt::format(",{}:{}", json_quote(metric.name), json_number(metric.value));
  }
  return line + "}\n";
}

void for_each_metrics_line(std::string_view text, const std::string& file,
                           const std::function<void(const MetricsLine&, size_t)>& visit) {
  size_t begin = 0;
  for (int number = 1; begin < text.size(); ++number) {
    const size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) return;
    visit(parse_metrics_line(text.substr(begin, end - begin), fmt::format("{}:{}", file, number)), end + 1);
    begin = end + 1;
  }
}

std::map<std::string, MetricSeries> read_metrics(const std::filesystem::path& path) {
  const MappedFile file(path);
  std::map<std::string, MetricSeries> result;
  int64_t last_step = 0;
  for_each_metrics_line(text_of(file), path.string(), [&](const MetricsLine& line, size_t) {
    if (line.step < last_step) {
      throw Error(fmt::format("'{}': step {} stands behind step {}", path.string(), line.step, last_step),
                  Error::Kind::kData);
    }
    last_step = line.step;
    for (const auto& metric : line.metrics) {
      auto& series = result[metric.name];
      if (!series.steps.empty() && series.steps.back() == line.step) {
        throw Error(fmt::format("'{}': '{}' stands twice at step {}", path.string(), metric.name, line.step),
                    Error::Kind::kData);
      }
      series.steps.push_back(line.step);
      series.times.push_back(line.time);
      series.values.push_back(metric.value);
    }
  });
  return result;
}

void rewind_metrics(const std::filesystem::path& path, int64_t last_step) {
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !error) return;
  const std::string text = read_file(path);
  size_t kept = 0;
  bool keeping = last_step >= 0;  // the lines are in the order of steps
  if (keeping) {
    for_each_metrics_line(text, path.string(), [&](const MetricsLine& line, size_t end) {
      keeping = keeping && line.step <= last_step;
      if (keeping) kept = end;
    });
  }
  if (kept < text.size()) write_file_atomically(path, std::string_view(text).substr(0, kept));
}

}  // namespace conclave::train
