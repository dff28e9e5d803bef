// SPDX-License-Identifier: Apache-2.0
// Tokens per expert, the generated sample, the configuration.
#include <algorithm>

#include <fmt/format.h>

#include "conclave/analyze/format.h"
#include "report_parts.h"

namespace conclave::analyze {

namespace {

constexpr size_t kSampleBytes = 16384;  // of a longer sample the rest is left out

std::string token_chips(const std::vector<TokenAmount>& tokens, RoutingUnit unit) {
  std::string chips;
  for (const auto& token : tokens) {
    chips += fmt::format(
        "<code title=\"{}: {} {}, {} of all its {}\">{}</code> ",
        escape(token.bytes.empty() ? "start of a document" : visible_token(token.bytes)),
        unit == RoutingUnit::kPairs ? grouped(static_cast<int64_t>(token.amount)) : readable(token.amount),
        unit == RoutingUnit::kPairs ? "times" : "weight", percent(token.share),
        unit == RoutingUnit::kPairs ? "requests" : "weight", escape(visible_token(token.bytes)));
  }
  return chips.empty() ? "–" : chips;
}

std::string token_table(const LayerRecord& layer, bool open) {
  double sum = 0;
  for (const auto& e : layer.experts) sum += e.requested;
  std::string rows;
  for (size_t i = 0; i < layer.experts.size(); ++i) {
    const auto& e = layer.experts[i];
    const double share = sum > 0 ? e.requested / sum : 0;
    rows += fmt::format(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"chips\">{}</td><td "
        "class=\"chips\">{}</td></tr>\n",
        i, data_element(share, percent(share)), token_chips(e.distinctive, layer.unit),
        token_chips(e.frequent, layer.unit));
  }
  const std::string bits =
      layer.token_information_bits
          ? fmt::format(" <span class=\"unit\">mutual information of token and expert {} bits</span>",
                        readable(*layer.token_information_bits, 3))
          : "";
  return fmt::format(
      "<details{}><summary>Layer {}{}</summary>\n<div class=\"wide\"><table class=\"tokens\"><thead><tr>"
      "<th scope=\"col\">expert</th><th scope=\"col\">share</th><th scope=\"col\" class=\"text\">most "
      "distinctive</th>"
      "<th scope=\"col\" class=\"text\">most "
      "frequent</th></tr></thead><tbody>\n{}</tbody></table></div></details>\n",
      open ? " open=\"open\"" : "", layer.layer, bits, rows);
}

}  // namespace

std::string report_tokens(const RunData& run) {
  if (run.routing.empty()) return "";
  const auto& layers = run.routing.back().layers;
  const auto has_tokens = [](const LayerRecord& layer) {
    return std::any_of(layer.experts.begin(), layer.experts.end(),
                       [](const ExpertRecord& e) { return !e.frequent.empty(); });
  };
  const auto most = std::max_element(layers.begin(), layers.end(), [](const auto& a, const auto& b) {
    return a.token_information_bits.value_or(0) < b.token_information_bits.value_or(0);
  });
  std::string body;
  for (auto layer = layers.begin(); layer != layers.end(); ++layer) {
    if (has_tokens(*layer)) body += token_table(*layer, layer == most);
  }
  return body;
}

std::string report_sample(const RunData& run) {
  if (run.sample.empty()) return "";
  const std::string shown = run.sample.substr(0, kSampleBytes);
  return fmt::format(
      "<pre class=\"sample\">{}</pre>\n{}", escape(shown),
      run.sample.size() > kSampleBytes ? "<p class=\"note\">The rest is in sample.txt.</p>\n" : "");
}

std::string report_config(const RunData& run) {
  if (run.config_text.empty()) return "";
  std::string body;
  if (!run.command.empty()) body += fmt::format("<pre class=\"command\">{}</pre>\n", escape(run.command));
  return body +
         fmt::format(
             "<details class=\"config\"><summary>resolved_config.yaml</summary>\n<pre>{}</pre></details>\n",
             escape(run.config_text));
}

}  // namespace conclave::analyze
