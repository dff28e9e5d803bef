// SPDX-License-Identifier: Apache-2.0
// Routing of held-out text: load over time, experts by domain, a table of layers.
#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "conclave/analyze/format.h"
#include "conclave/analyze/heat_map.h"
#include "conclave/analyze/information.h"
#include "report_parts.h"

namespace conclave::analyze {

namespace {

constexpr double kRatioLimit = 2.0;  // where the colours end
constexpr size_t kOpenLayers = 8;    // more are folded

std::vector<double> requested_amounts(const LayerRecord& layer) {
  std::vector<double> amounts;
  for (const auto& e : layer.experts) amounts.push_back(e.requested);
  return amounts;
}

double sum_of(const std::vector<double>& amounts) {
  double sum = 0;
  for (const double amount : amounts) sum += amount;
  return sum;
}

double row_height_for(size_t experts) {
  return experts <= 16 ? 17 : experts <= 32 ? 11 : experts <= 64 ? 7 : 3;
}

std::vector<std::string> expert_names(size_t count) {
  std::vector<std::string> names;
  for (size_t e = 0; e < count; ++e) names.push_back(std::to_string(e));
  return names;
}

std::string unit_name(RoutingUnit unit) {
  return unit == RoutingUnit::kPairs ? "requests" : "combine weight";
}

// Experts by evaluated step.
std::string load_map(const RunData& run, size_t index) {
  const auto& last = run.routing.back().layers[index];
  const size_t num_experts = last.experts.size();
  HeatMap map{.title = fmt::format("Layer {}", last.layer),
              .unit = fmt::format("share of {}, a row per expert", unit_name(last.unit)),
              .row_name = "expert",
              .column_name = "step",
              .rows = expert_names(num_experts),
              .row_height = row_height_for(num_experts)};
  std::vector<std::vector<double>> loads;
  for (const auto& record : run.routing) {
    if (index >= record.layers.size() || record.layers[index].experts.size() != num_experts) continue;
    map.columns.push_back(std::to_string(record.step));
    loads.push_back(requested_amounts(record.layers[index]));
  }
  for (size_t e = 0; e < num_experts; ++e) {
    for (size_t t = 0; t < loads.size(); ++t) {
      const double sum = sum_of(loads[t]);
      const double ratio = sum > 0 ? loads[t][e] * static_cast<double>(num_experts) / sum : NAN;
      map.cells.push_back(
          {.level = ratio_level(ratio, kRatioLimit),
           .tooltip = fmt::format("step {}, expert {}: {}× its fair share ({})", map.columns[t], e,
                                  readable(ratio, 3), percent(loads[t][e] / std::max(sum, 1e-300)))});
    }
  }
  return render_heat_map(map);
}

// [domain][expert], row-major.
std::vector<double> domain_table(const RoutingRecord& record, const LayerRecord& layer) {
  std::vector<double> table;
  for (size_t d = 0; d < record.domains.size(); ++d) {
    for (const auto& e : layer.experts) table.push_back(e.by_domain[d]);
  }
  return table;
}

std::string domain_map(const RoutingRecord& record, const LayerRecord& layer) {
  const size_t num_experts = layer.experts.size();
  const auto table = domain_table(record, layer);
  const auto loads = requested_amounts(layer);
  const double sum = sum_of(table);
  HeatMap map{.title = fmt::format("Layer {}", layer.layer),
              .unit = fmt::format("mutual information {} bits",
                                  readable(mutual_information_bits(table, num_experts), 3)),
              .row_name = "domain",
              .column_name = "expert",
              .rows = record.domains,
              .columns = expert_names(num_experts),
              .row_height = record.domains.size() <= 12 ? 22.0 : 14.0,
              .cell_text = num_experts <= 16};
  for (size_t d = 0; d < record.domains.size(); ++d) {
    double of_domain = 0;
    for (size_t e = 0; e < num_experts; ++e) of_domain += table[d * num_experts + e];
    for (size_t e = 0; e < num_experts; ++e) {
      const double share = of_domain > 0 ? table[d * num_experts + e] / of_domain : NAN;
      double of_expert = 0;
      for (size_t i = 0; i < record.domains.size(); ++i) of_expert += table[i * num_experts + e];
      const double ratio = of_expert > 0 ? share / (of_expert / sum) : NAN;
      map.cells.push_back(
          {.level = ratio_level(ratio, kRatioLimit),
           .text = std::isfinite(share) ? fmt::format("{:.0f}", 100 * share) : "",
           .tooltip =
               fmt::format("{}, expert {}: {} of the domain's {}, {}× the expert's share of all",
                           record.domains[d], e, percent(share), unit_name(layer.unit), readable(ratio, 3))});
    }
  }
  return render_heat_map(map);
}

std::string layer_row(const RoutingRecord& record, const LayerRecord& layer) {
  const auto loads = requested_amounts(layer);
  double kept = 0;
  for (const auto& e : layer.experts) kept += e.kept;
  const double requested = sum_of(loads);
  const auto idle = std::count(loads.begin(), loads.end(), 0.0);
  const auto cell = [](double value, const std::string& shown) {
    return fmt::format("<td>{}</td>", data_element(value, shown));
  };
  const auto optional_cell = [&](const std::optional<double>& value) {
    return value ? cell(*value, readable(*value, 3)) : std::string("<td>–</td>");
  };
  const double load = max_over_mean(loads), entropy = normalised_entropy(loads);
  const double dropped = requested > 0 ? 1.0 - kept / requested : 0.0;
  const double bits = mutual_information_bits(domain_table(record, layer), layer.experts.size());
  return fmt::format("<tr><th scope=\"row\">layer {}</th>", layer.layer) + cell(load, fixed(load, 2)) +
         cell(entropy, fixed(entropy, 3)) + cell(static_cast<double>(idle), std::to_string(idle)) +
         cell(dropped, percent(dropped)) + optional_cell(layer.router_entropy) +
         (record.domains.size() > 1 ? cell(bits, readable(bits, 3)) : std::string("<td>–</td>")) +
         optional_cell(layer.token_information_bits) + "</tr>\n";
}

std::string layer_table(const RoutingRecord& record) {
  std::string rows;
  for (const auto& layer : record.layers) rows += layer_row(record, layer);
  return fmt::format(
      "<div class=\"wide\"><table><caption>Step {}, {} tokens of {}</caption>\n"
      "<thead><tr><th scope=\"col\"></th><th scope=\"col\">load max/mean</th><th scope=\"col\">load "
      "entropy</th>"
      "<th scope=\"col\">idle experts</th><th scope=\"col\">dropped</th><th scope=\"col\">router entropy</th>"
      "<th scope=\"col\">I(domain; expert), bits</th><th scope=\"col\">I(token; expert), "
      "bits</th></tr></thead>"
      "<tbody>\n{}</tbody></table></div>\n",
      grouped(record.step), grouped(record.num_tokens),
      record.whole ? "all held-out text" : "the held-out sample", rows);
}

// All of few layers, an even choice of many.
bool is_open_layer(size_t layer, size_t num_layers) {
  if (num_layers <= kOpenLayers) return true;
  for (size_t j = 0; j < kOpenLayers; ++j) {
    if (j * (num_layers - 1) / (kOpenLayers - 1) == layer) return true;
  }
  return false;
}

// A figure per layer; those that are not open are folded.
std::string per_layer(size_t num_layers, const std::function<std::string(size_t)>& render) {
  std::string open, folded;
  for (size_t i = 0; i < num_layers; ++i) (is_open_layer(i, num_layers) ? open : folded) += render(i);
  std::string body = fmt::format("<div class=\"charts\">\n{}</div>\n", open);
  if (!folded.empty()) {
    body += fmt::format(
        "<details><summary>The other layers</summary>\n<div class=\"charts\">\n{}</div>\n</details>\n",
        folded);
  }
  return body;
}

}  // namespace

std::string report_experts(const RunData& run) {
  if (run.routing.empty()) return "";
  const auto& last = run.routing.back();
  const size_t num_layers = last.layers.size();
  std::string body = layer_table(last);
  body += "<h3>Load over time</h3>\n" +
          render_ratio_scale(kRatioLimit, "half or less", "fair share", "twice or more");
  body += per_layer(num_layers, [&](size_t i) { return load_map(run, i); });
  if (last.domains.size() > 1) {
    body += "<h3>Experts by domain</h3>\n";
    body +=
        "<p class=\"lead\">In a cell: percent of the domain that goes to the expert. Colour: that against "
        "the "
        "expert's share of everything.</p>\n";
    body += render_ratio_scale(kRatioLimit, "half or less", "as overall", "twice or more");
    body += per_layer(num_layers, [&](size_t i) { return domain_map(last, last.layers[i]); });
  }
  return body;
}

}  // namespace conclave::analyze
