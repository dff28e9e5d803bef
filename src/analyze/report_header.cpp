// SPDX-License-Identifier: Apache-2.0
// The top of the page: what was run, how it ended, and its numbers.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "conclave/analyze/format.h"
#include "conclave/analyze/line_chart.h"
#include "report_parts.h"

namespace conclave::analyze {

namespace {

struct KeyFigure {
  std::string name = {};
  std::optional<double> value = {};
  std::string shown = {};
  std::string note = {};
};

// Seconds between the first and the last line of the metrics: includes pauses of a run that was continued.
std::optional<double> time_between_metrics(const RunData& run) {
  double first = INFINITY, last = -INFINITY;
  for (const auto& [name, series] : run.metrics) {
    if (series.times.empty()) continue;
    first = std::min(first, series.times.front());
    last = std::max(last, series.times.back());
  }
  if (last <= first) return std::nullopt;
  return last - first;
}

std::optional<double> last_step(const RunData& run) {
  int64_t step = run.status ? run.status->step : 0;
  for (const auto& [name, series] : run.metrics) {
    if (!series.steps.empty()) step = std::max(step, series.steps.back());
  }
  if (step == 0) return std::nullopt;
  return static_cast<double>(step);
}

std::optional<double> median_speed(const RunData& run) {
  const auto* speed = run.series("perf/tokens_per_second");
  return speed ? quantile(speed->values, 0.5) : std::nullopt;
}

std::vector<KeyFigure> key_figures(const RunData& run) {
  const std::string prefix = validation_prefix(run);
  const std::string over = prefix == "final"   ? "all held-out text"
                           : prefix == "valid" ? "held-out sample"
                                               : "";
  std::vector<KeyFigure> figures;
  const auto add = [&](const char* name, std::optional<double> value, std::string (*show)(double),
                       const std::string& note) {
    figures.push_back({name, value, value ? show(*value) : "", note});
  };
  const auto four = [](double v) { return fixed(v, 4); };
  const auto whole = [](double v) { return grouped(static_cast<int64_t>(v)); };
  add("bits per byte", last_value(run, prefix + "/bits_per_byte"), four, over);
  add("held-out loss", last_value(run, prefix + "/loss"), four, "nats per token");
  add("training loss", last_value(run, "train/loss"), four, "last logged step");
  add("steps", last_step(run), whole, "");
  add("tokens", last_value(run, "train/tokens"), abbreviated, "trained on");
  add("tokens per second", median_speed(run), abbreviated, "median");
  add("wall time", time_between_metrics(run), duration, "first to last metric");
  figures.erase(std::remove_if(figures.begin(), figures.end(), [](const auto& f) { return !f.value; }),
                figures.end());
  return figures;
}

std::string state_text(const RunData& run) {
  if (!run.status) return "no status recorded";
  switch (run.status->state) {
    case train::RunState::kFinished:
      return "complete";
    case train::RunState::kStopped:
      return fmt::format("stopped after step {} ({})", grouped(run.status->step), run.status->exit_reason);
    case train::RunState::kFailed:
      return fmt::format("failed after step {}: {}", grouped(run.status->step), run.status->exit_reason);
    case train::RunState::kRunning:
      break;
  }
  return fmt::format("not finished: running or interrupted; last checkpoint at step {}",
                     grouped(run.status->step));
}

// "8 experts in 4 layers, top-2 routing, width 256": what the config says, as far as it says it.
std::string model_text(const RunData& run) {
  const auto value = [&](const char* path) { return run.config_value(path); };
  std::vector<std::string> parts;
  if (const auto layers = value("model.num_hidden_layers")) parts.push_back(*layers + " layers");
  if (const auto width = value("model.hidden_size")) parts.push_back("width " + *width);
  if (const auto experts = value("model.moe.num_experts")) {
    const auto k = value("model.moe.router.top_k"), type = value("model.moe.router.type");
    parts.push_back(*experts + " experts");
    if (k) {
      parts.push_back("top-" + *k + " routing");
    } else if (type) {
      parts.push_back("router " + *type);
    }
  } else if (!run.config_text.empty()) {
    parts.push_back("dense");
  }
  if (const auto length = value("data.seq_length")) parts.push_back("sequences of " + *length);
  if (const auto precision = value("training.precision")) parts.push_back(*precision);
  return fmt::format("{}", fmt::join(parts, " · "));
}

std::string comparison_row(const RunData& run, const std::string& label, size_t i) {
  const auto cell = [](std::optional<double> value, const std::string& shown) {
    return value ? fmt::format("<td>{}</td>", data_element(*value, shown)) : std::string("<td>–</td>");
  };
  const auto number = [&](const std::string& name, int decimals) {
    const auto value = last_value(run, name);
    return cell(value, value ? fixed(*value, decimals) : "");
  };
  const std::string prefix = validation_prefix(run);
  std::string row =
      fmt::format("<tr><th scope=\"row\"><i class=\"swatch {}\"></i>{}</th>", run_colour(i), escape(label));
  row += number(prefix + "/bits_per_byte", 4) + number(prefix + "/loss", 4) + number("train/loss", 4);
  const auto steps = last_step(run), tokens = last_value(run, "train/tokens"), speed = median_speed(run),
             time = time_between_metrics(run);
  row += cell(steps, steps ? grouped(static_cast<int64_t>(*steps)) : "");
  row += cell(tokens, tokens ? abbreviated(*tokens) : "") + cell(speed, speed ? abbreviated(*speed) : "");
  row += cell(time, time ? duration(*time) : "");
  row += number("moe/load_max_over_mean", 2);
  return row + fmt::format("<td class=\"text\">{}</td></tr>\n",
                           escape(run.status ? train::to_string(run.status->state) : "–"));
}

// Keys that not all runs have alike.
std::string differing_keys(const Runs& runs, const std::vector<std::string>& labels) {
  std::vector<std::vector<std::pair<std::string, std::string>>> flats;
  std::vector<std::string> keys;
  for (const auto& run : runs) {
    flats.push_back(flat_config(run.config));
    for (const auto& [key, value] : flats.back()) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  }
  std::string rows;
  for (const auto& key : keys) {
    if (key == "run.name" || key == "run.output_dir") continue;
    std::vector<std::string> values;
    for (const auto& flat : flats) {
      const auto it =
          std::find_if(flat.begin(), flat.end(), [&](const auto& item) { return item.first == key; });
      values.push_back(it == flat.end() ? "–" : it->second);
    }
    if (std::count(values.begin(), values.end(), values[0]) == static_cast<std::ptrdiff_t>(values.size()))
      continue;
    rows += fmt::format("<tr><th scope=\"row\"><code>{}</code></th>", escape(key));
    for (const auto& value : values) rows += fmt::format("<td class=\"text\">{}</td>", escape(value));
    rows += "</tr>\n";
  }
  if (rows.empty()) return "<p class=\"note\">The configurations differ in name and folder only.</p>\n";
  std::string head = "<tr><th scope=\"col\">differing key</th>";
  for (const auto& label : labels)
    head += fmt::format("<th scope=\"col\" class=\"text\">{}</th>", escape(label));
  return fmt::format("<div class=\"wide\"><table><thead>{}</tr></thead><tbody>\n{}</tbody></table></div>\n",
                     head, rows);
}

}  // namespace

std::string report_header(const Runs& runs) {
  const auto labels = run_labels(runs);
  if (runs.size() > 1) {
    return fmt::format(
        "<header><p class=\"kicker\">Conclave report</p>\n<h1>{} runs compared</h1></header>\n", runs.size());
  }
  const auto& run = runs[0];
  std::string figures;
  for (const auto& figure : key_figures(run)) {
    figures += fmt::format("<div><dt>{}</dt><dd>{}<small>{}</small></dd></div>\n", escape(figure.name),
                           data_element(*figure.value, figure.shown), escape(figure.note));
  }
  std::string header = fmt::format(
      "<header><p class=\"kicker\">Conclave report</p>\n<h1>{}</h1>\n<p class=\"subtitle\">{}</p>\n"
      "<p class=\"state\">{}</p>\n",
      escape(labels[0]), escape(model_text(run)), escape(state_text(run)));
  if (figures.empty()) {
    header += "<p class=\"state\">No metrics were written yet.</p>\n";
  } else {
    header += fmt::format("<dl class=\"figures\">\n{}</dl>\n", figures);
  }
  return header + "</header>\n";
}

std::string report_comparison(const Runs& runs) {
  const auto labels = run_labels(runs);
  std::string rows;
  for (size_t i = 0; i < runs.size(); ++i) rows += comparison_row(runs[i], labels[i], i);
  const std::string table = fmt::format(
      "<div class=\"wide\"><table><thead><tr><th scope=\"col\">run</th><th scope=\"col\">bits per byte</th>"
      "<th scope=\"col\">held-out loss</th><th scope=\"col\">training loss</th><th scope=\"col\">steps</th>"
      "<th scope=\"col\">tokens</th><th scope=\"col\">tokens/s</th><th scope=\"col\">wall time</th>"
      "<th scope=\"col\">load max/mean</th><th scope=\"col\" "
      "class=\"text\">state</th></tr></thead><tbody>\n{}"
      "</tbody></table></div>\n",
      rows);
  return report_section(
      "comparison", "Side by side",
      "Held-out numbers are of all held-out text where a run came to its end, else of the last "
      "evaluated sample.",
      table + differing_keys(runs, labels));
}

}  // namespace conclave::analyze
