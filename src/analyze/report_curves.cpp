// SPDX-License-Identifier: Apache-2.0
// Curves over the run: learning, balance, mechanics.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "conclave/analyze/format.h"
#include "conclave/analyze/line_chart.h"
#include "report_parts.h"

namespace conclave::analyze {

namespace {

using Style = LineSeries::Style;

LineSeries line_of(const train::MetricSeries& series, const std::string& name, const std::string& colour,
                   Style style = Style::kLine) {
  LineSeries line{.name = name, .colour = colour, .x = {}, .y = series.values, .style = style};
  for (const int64_t step : series.steps) line.x.push_back(static_cast<double>(step));
  return line;
}

size_t smoothing_window(size_t points) {
  return points < 60 ? 1 : points / 20;
}

// A noisy series: thin as logged and, over it, its running mean.
void add_smoothed(LineChart& chart, const train::MetricSeries& series, const std::string& name,
                  const std::string& colour, bool with_raw) {
  const size_t window = smoothing_window(series.values.size());
  auto line = line_of(series, name, colour);
  if (window > 1) {
    if (with_raw) chart.series.push_back(line_of(series, "", colour, Style::kFaint));
    line.y = running_mean(series.values, window);
    chart.note = fmt::format("running mean of {}", window / 2 * 2 + 1);
  }
  chart.series.push_back(std::move(line));
}

// Cuts off the fall of the first steps, beside which the rest of the curve would be flat.
void cut_high_start(LineChart& chart) {
  std::vector<double> values;
  for (const auto& s : chart.series) values.insert(values.end(), s.y.begin(), s.y.end());
  const auto high = quantile(values, 0.93), low = quantile(values, 0.0), top = quantile(values, 1.0);
  if (!high || values.size() < 40 || *top - *low < 1.6 * (*high - *low)) return;
  chart.high = *high + 0.05 * (*high - *low);
  chart.note += fmt::format("{}peak {} cut off", chart.note.empty() ? "" : "; ", readable(*top, 3));
}

std::string one_loss_chart(const RunData& run) {
  LineChart chart{.title = "Loss", .unit = "nats per token"};
  if (const auto* train = run.series("train/loss")) add_smoothed(chart, *train, "training", "c0", true);
  if (const auto* valid = run.series("valid/loss")) {
    chart.series.push_back(line_of(*valid, "held-out", "c1", Style::kDots));
  } else if (const auto* final = run.series("final/loss")) {
    chart.series.push_back(line_of(*final, "held-out", "c1", Style::kDots));
  }
  if (chart.series.empty()) return "";
  cut_high_start(chart);
  return render_line_chart(chart);
}

std::string one_bits_chart(const RunData& run) {
  LineChart chart{.title = "Bits per byte", .unit = "held-out text"};
  if (const auto* valid = run.series("valid/bits_per_byte")) {
    chart.series.push_back(line_of(*valid, "sample", "c1", Style::kDots));
  }
  if (const auto* final = run.series("final/bits_per_byte")) {
    chart.series.push_back(
        line_of(*final, fmt::format("all text {}", fixed(final->values.back(), 4)), "c0", Style::kDots));
  }
  if (chart.series.empty()) return "";
  return render_line_chart(chart);
}

struct CurveOptions {
  std::string metric = {}, title = {}, unit = {};
  bool smooth = false, from_zero = false;
  std::optional<double> reference = {};
  std::string reference_name = {};
};

// One chart of a metric, a line per run; nothing where no run has it.
std::string overlaid_chart(const Runs& runs, const CurveOptions& options, Style style = Style::kLine) {
  LineChart chart{.title = options.title,
                  .unit = options.unit,
                  .reference = options.reference,
                  .reference_name = options.reference_name};
  if (options.from_zero) chart.low = 0.0;
  const auto labels = run_labels(runs);
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto* series = runs[i].series(options.metric);
    if (!series) continue;
    const std::string name = runs.size() > 1 ? labels[i] : "";
    if (options.smooth) {
      add_smoothed(chart, *series, name, run_colour(i), runs.size() == 1);
    } else {
      chart.series.push_back(line_of(*series, name, run_colour(i), style));
    }
  }
  if (chart.series.empty()) return "";
  if (options.smooth) cut_high_start(chart);
  return render_line_chart(chart);
}

// A line per layer for one run whose metrics go layer by layer.
std::string layered_chart(const RunData& run, const CurveOptions& options) {
  const std::string prefix = options.metric + "_layer_";
  std::vector<std::pair<int, const train::MetricSeries*>> layers;
  for (const auto& [name, series] : run.metrics) {
    if (!name.starts_with(prefix) || series.steps.empty()) continue;
    layers.emplace_back(std::stoi(name.substr(prefix.size())), &series);
  }
  if (layers.empty()) return "";
  std::sort(layers.begin(), layers.end());
  LineChart chart{.title = options.title,
                  .unit = options.unit,
                  .reference = options.reference,
                  .reference_name = options.reference_name};
  if (options.from_zero) chart.low = 0.0;
  for (size_t i = 0; i < layers.size(); ++i) {
    const bool named = layers.size() <= 8 || i == 0 || i + 1 == layers.size();
    add_smoothed(chart, *layers[i].second, named ? fmt::format("MoE layer {}", layers[i].first) : "",
                 layer_colour(i, layers.size()), false);
  }
  return render_line_chart(chart);
}

bool always_zero(const Runs& runs, const std::string& metric) {
  bool any = false;
  for (const auto& run : runs) {
    const auto* series = run.series(metric);
    if (!series) continue;
    any = true;
    for (const double value : series->values) {
      if (value != 0.0) return false;
    }
  }
  return any;
}

// Entropy of the router's own distribution, recorded at evaluations.
std::string router_entropy_chart(const RunData& run) {
  if (run.routing.empty()) return "";
  LineChart chart{.title = "Router entropy",
                  .unit = "held-out text, over log E",
                  .note = "1: every expert equally likely for a token"};
  const auto& layers = run.routing.back().layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    LineSeries line{.name = layers.size() <= 8 || i == 0 || i + 1 == layers.size()
                                ? fmt::format("layer {}", layers[i].layer)
                                : "",
                    .colour = layer_colour(i, layers.size()),
                    .style = Style::kDots};
    for (const auto& record : run.routing) {
      if (i >= record.layers.size() || !record.layers[i].router_entropy) continue;
      line.x.push_back(static_cast<double>(record.step));
      line.y.push_back(*record.layers[i].router_entropy);
    }
    if (!line.x.empty()) chart.series.push_back(std::move(line));
  }
  return chart.series.empty() ? "" : render_line_chart(chart);
}

std::string charts(const std::string& figures) {
  return figures.empty() ? "" : fmt::format("<div class=\"charts\">\n{}</div>\n", figures);
}

}  // namespace

std::string report_learning(const Runs& runs) {
  if (runs.size() == 1) return charts(one_loss_chart(runs[0]) + one_bits_chart(runs[0]));
  return charts(
      overlaid_chart(
          runs,
          {.metric = "train/loss", .title = "Training loss", .unit = "nats per token", .smooth = true}) +
      overlaid_chart(runs, {.metric = "valid/loss", .title = "Held-out loss", .unit = "nats per token"},
                     Style::kDots) +
      overlaid_chart(runs,
                     {.metric = "valid/bits_per_byte", .title = "Bits per byte", .unit = "held-out sample"},
                     Style::kDots));
}

std::string report_balance(const Runs& runs) {
  const std::vector<CurveOptions> curves = {
      {.metric = "moe/load_max_over_mean",
       .title = "Load of the fullest expert",
       .unit = "over the mean",
       .smooth = true,
       .reference = 1.0,
       .reference_name = "even"},
      {.metric = "moe/load_entropy",
       .title = "Load entropy",
       .unit = "1 is even, 0 one expert",
       .smooth = true},
      {.metric = "moe/drop_rate",
       .title = "Dropped by capacity",
       .unit = "share of requests",
       .from_zero = true},
      {.metric = "moe/dead_share",
       .title = "Experts that nobody asked for",
       .unit = "share",
       .from_zero = true},
      {.metric = "moe/bias_norm", .title = "Selection bias", .unit = "norm", .from_zero = true},
      {.metric = "moe/load_balancing",
       .title = "Load-balancing loss",
       .unit = "before its weight",
       .smooth = true},
      {.metric = "moe/z_loss", .title = "Router z-loss", .unit = "before its weight", .smooth = true}};
  std::string figures;
  std::vector<std::string> quiet;
  for (const auto& curve : curves) {
    if (always_zero(runs, curve.metric)) {
      if (curve.metric == "moe/drop_rate") quiet.emplace_back("no request was dropped");
      if (curve.metric == "moe/dead_share") quiet.emplace_back("no expert was idle in a logged step");
      continue;
    }
    std::string figure = runs.size() == 1 ? layered_chart(runs[0], curve) : "";
    if (figure.empty()) figure = overlaid_chart(runs, curve);
    figures += figure;
  }
  if (runs.size() == 1) figures += router_entropy_chart(runs[0]);
  std::string body = charts(figures);
  if (!quiet.empty()) {
    std::string sentence = fmt::format("{}", fmt::join(quiet, "; "));
    sentence[0] = 'N';
    body += fmt::format("<p class=\"note\">{}.</p>\n", escape(sentence));
  }
  return body;
}

std::string report_mechanics(const Runs& runs) {
  std::string figures =
      overlaid_chart(runs, {.metric = "perf/tokens_per_second",
                            .title = "Throughput",
                            .unit = "tokens per second",
                            .from_zero = true}) +
      overlaid_chart(runs, {.metric = "train/grad_norm",
                            .title = "Gradient norm",
                            .unit = "before clipping",
                            .smooth = true}) +
      overlaid_chart(runs, {.metric = "train/lr", .title = "Learning rate", .from_zero = true});
  if (!always_zero(runs, "train/skipped_steps")) {
    figures += overlaid_chart(
        runs,
        {.metric = "train/skipped_steps", .title = "Skipped steps", .unit = "so far", .from_zero = true});
  }
  return charts(figures);
}

}  // namespace conclave::analyze
