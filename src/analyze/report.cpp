// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "conclave/analyze/format.h"
#include "conclave/core/error.h"
#include "report_parts.h"

namespace conclave::analyze {

std::string report_section(const std::string& id, const std::string& heading, const std::string& lead,
                           const std::string& body) {
  if (body.empty()) return "";
  return fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n<p class=\"lead\">{}</p>\n{}</section>\n", id,
                     escape(heading), escape(lead), body);
}

std::vector<std::string> run_labels(const Runs& runs) {
  std::map<std::string, int> uses;
  for (const auto& run : runs) ++uses[run.name];
  std::vector<std::string> labels;
  for (const auto& run : runs) {
    labels.push_back(uses[run.name] > 1 ? run.folder.filename().string() : run.name);
  }
  std::map<std::string, int> seen;
  for (auto& label : labels) {
    if (const int n = ++seen[label]; n > 1) label += fmt::format(" ({})", n);
  }
  return labels;
}

std::string run_colour(size_t i) {
  return fmt::format("c{}", i % 7);
}

std::string layer_colour(size_t i, size_t n) {
  return fmt::format("l{}",
                     n < 2 ? 2 : std::lround(5.0 * static_cast<double>(i) / static_cast<double>(n - 1)));
}

std::optional<double> last_value(const RunData& run, const std::string& name) {
  const auto* series = run.series(name);
  if (!series) return std::nullopt;
  for (size_t i = series->values.size(); i-- > 0;) {
    if (std::isfinite(series->values[i])) return series->values[i];
  }
  return std::nullopt;
}

std::string validation_prefix(const RunData& run) {
  for (const char* prefix : {"final", "valid"}) {
    if (last_value(run, std::string(prefix) + "/loss")) return prefix;
  }
  return "";
}

namespace {

// Where the page of several runs repeats a part per run, all but the first are folded.
std::string per_run(const Runs& runs, std::string (*part)(const RunData&)) {
  if (runs.size() == 1) return part(runs[0]);
  const auto labels = run_labels(runs);
  std::string body;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string content = part(runs[i]);
    if (content.empty()) continue;
    body += fmt::format(
        "<details class=\"run\"{}><summary><i class=\"swatch {}\"></i>{}</summary>\n{}</details>\n",
        body.empty() ? " open=\"open\"" : "", run_colour(i), escape(labels[i]), content);
  }
  return body;
}

std::string page_title(const Runs& runs) {
  const auto labels = run_labels(runs);
  if (labels.size() == 1) return labels[0];
  return fmt::format("{} runs: {}", labels.size(), fmt::join(labels, ", "));
}

}  // namespace

std::string render_report(const std::vector<RunData>& runs) {
  if (runs.empty()) throw Error("a report needs at least one run");
  std::string body = report_header(runs);
  if (runs.size() > 1) body += report_comparison(runs);
  body += report_section("learning", "Learning",
                         "Nats per target token, and bits per byte of text. Lower is better.",
                         report_learning(runs));
  body += report_section("balance", "Balance of the experts",
                         "How evenly training spreads tokens over the experts, mean over the MoE layers.",
                         report_balance(runs));
  body += report_section(
      "experts", "Who goes where",
      "Routing of held-out text, recorded at every evaluation. A share of 1× is an expert's fair share.",
      per_run(runs, report_experts));
  body += report_section(
      "tokens", "What the experts take",
      "Most frequent tokens per expert, and the most distinctive: those that tell most about the expert "
      "(largest contribution to the mutual information). A space is ␣, a line end ↵.",
      per_run(runs, report_tokens));
  body += report_section("mechanics", "Mechanics", "Speed, step size and gradient along the run.",
                         report_mechanics(runs));
  body += report_section("sample", "A sample", "Text written by the trained model.",
                         per_run(runs, report_sample));
  body += report_section("config", "Configuration",
                         "Every key with its value and where it was written; this file repeats the run.",
                         per_run(runs, report_config));
  return fmt::format(
      "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n"
      "<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<meta name=\"color-scheme\" content=\"light "
      "dark\"/>\n<title>{}</title>\n<style>\n{}</style>\n</head>\n"
      "<body>\n<main>\n{}</main>\n</body>\n</html>\n",
      escape(page_title(runs)), report_style(), body);
}

}  // namespace conclave::analyze
