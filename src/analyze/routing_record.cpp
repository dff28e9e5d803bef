// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/routing_record.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/json_reader.h"

namespace conclave::analyze {

namespace {

constexpr const char* kFormat = "conclave-routing-1";

std::string hex_of(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

std::string bytes_of_hex(const train::JsonReader& reader) {
  const std::string& hex = reader.text();
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(hex.data() + i, hex.data() + i + 2, value, 16);
    if (error != std::errc() || end != hex.data() + i + 2) reader.fail("hexadecimal digits");
    bytes += static_cast<char>(value);
  }
  if (hex.size() % 2 != 0) reader.fail("pairs of hexadecimal digits");
  return bytes;
}

// "[a,b]"; with a line feed and an indent between the items where `between` has them.
std::string render_list(const std::vector<std::string>& items, const char* between = ",") {
  return fmt::format("[{}]", fmt::join(items, between));
}

std::string render_numbers(const std::vector<double>& values) {
  std::vector<std::string> items;
  for (const double value : values) items.push_back(train::json_number(value));
  return render_list(items);
}

std::string render_tokens(const std::vector<TokenAmount>& tokens) {
  std::vector<std::string> items;
  for (const auto& t : tokens) {
    items.push_back(fmt::format("[{},\"{}\",{},{}]", t.token, hex_of(t.bytes), train::json_number(t.amount),
                                train::json_number(t.share)));
  }
  return render_list(items);
}

std::string render_optional(const std::optional<double>& value) {
  return value ? train::json_number(*value) : "null";
}

std::string render_expert(const ExpertRecord& e) {
  return fmt::format(R"({{"requested":{},"kept":{},"by_domain":{},"frequent":{},"distinctive":{}}})",
                     train::json_number(e.requested), train::json_number(e.kept), render_numbers(e.by_domain),
                     render_tokens(e.frequent), render_tokens(e.distinctive));
}

std::vector<TokenAmount> read_tokens(const train::JsonReader& list) {
  std::vector<TokenAmount> tokens;
  for (const auto& item : list.items()) {
    const auto fields = item.items();
    if (fields.size() != 4) item.fail("[token, bytes, amount, share]");
    tokens.push_back({.token = static_cast<int32_t>(fields[0].count(INT32_MAX)),
                      .bytes = bytes_of_hex(fields[1]),
                      .amount = fields[2].number(),
                      .share = fields[3].number()});
  }
  return tokens;
}

double read_amount(const train::JsonReader& reader) {
  const double value = reader.number();
  if (value < 0) reader.fail("an amount >= 0");
  return value;
}

std::optional<double> read_optional(const train::JsonReader& reader) {
  if (reader.is_null()) return std::nullopt;
  return reader.number();
}

LayerRecord read_layer(const train::JsonReader& json, size_t num_domains) {
  LayerRecord layer{.layer = static_cast<int>(json.at("layer").count(1 << 20)),
                    .router_entropy = read_optional(json.at("router_entropy")),
                    .token_information_bits = read_optional(json.at("token_information_bits"))};
  const std::string& unit = json.at("unit").text();
  if (unit != "pairs" && unit != "mass") json.at("unit").fail("\"pairs\" or \"mass\"");
  layer.unit = unit == "pairs" ? RoutingUnit::kPairs : RoutingUnit::kMass;
  for (const auto& item : json.at("experts").items()) {
    ExpertRecord expert{.requested = read_amount(item.at("requested")),
                        .kept = read_amount(item.at("kept")),
                        .frequent = read_tokens(item.at("frequent")),
                        .distinctive = read_tokens(item.at("distinctive"))};
    for (const auto& amount : item.at("by_domain").items()) expert.by_domain.push_back(read_amount(amount));
    if (expert.by_domain.size() != num_domains) item.at("by_domain").fail("one amount per domain");
    layer.experts.push_back(std::move(expert));
  }
  return layer;
}

}  // namespace

std::string render_routing_record(const RoutingRecord& record) {
  std::vector<std::string> domains, layers;
  for (const auto& name : record.domains) domains.push_back(train::json_quote(name));
  for (const auto& layer : record.layers) {
    std::vector<std::string> experts;
    for (const auto& e : layer.experts) experts.push_back(render_expert(e));
    layers.push_back(fmt::format(
        R"({{"layer":{},"unit":"{}","router_entropy":{},"token_information_bits":{},"experts":{}}})",
        layer.layer, layer.unit == RoutingUnit::kPairs ? "pairs" : "mass",
        render_optional(layer.router_entropy), render_optional(layer.token_information_bits),
        render_list(experts, ",\n  ")));
  }
  return fmt::format(
      "{{\"format\":\"{}\",\"step\":{},\"over\":\"{}\",\"tokens\":{},\"domains\":{},\"layers\":{}}}\n",
      kFormat, record.step, record.whole ? "all" : "sample", record.num_tokens, render_list(domains),
      render_list(layers, ",\n "));
}

RoutingRecord read_routing_record(const std::filesystem::path& path) {
  const train::Json json = train::parse_json(read_file(path), path.string());
  const train::JsonReader root(json, path.string());
  if (root.at("format").text() != kFormat) root.at("format").fail(fmt::format("\"{}\"", kFormat));
  RoutingRecord record{.step = static_cast<int64_t>(root.at("step").count()),
                       .num_tokens = static_cast<int64_t>(root.at("tokens").count())};
  const std::string& over = root.at("over").text();
  if (over != "sample" && over != "all") root.at("over").fail("\"sample\" or \"all\"");
  record.whole = over == "all";
  for (const auto& name : root.at("domains").items()) record.domains.push_back(name.text());
  for (const auto& layer : root.at("layers").items()) {
    record.layers.push_back(read_layer(layer, record.domains.size()));
  }
  return record;
}

std::filesystem::path routing_file(const std::filesystem::path& run, int64_t step) {
  return run / kRoutingFolder / fmt::format("step-{:08}.json", step);
}

std::vector<int64_t> routing_steps(const std::filesystem::path& run) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& item : std::filesystem::directory_iterator(run / kRoutingFolder, error)) {
    const std::string name = item.path().filename();
    int64_t step = 0;
    if (!name.starts_with("step-") || !name.ends_with(".json")) continue;
    std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (routing_file(run, step).filename() == name) steps.push_back(step);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw Error(fmt::format("cannot read '{}': {}", (run / kRoutingFolder).string(), error.message()),
                Error::Kind::kData);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace conclave::analyze
