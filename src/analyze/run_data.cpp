// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/run_data.h"

#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"

namespace conclave::analyze {

namespace {

std::string read_optional_file(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_file(path) : std::string();
}

void check_is_run(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder)) {
    throw ConfigError(fmt::format(
        "there is no run folder '{}'; runs lie in runs/<run.name> or in run.output_dir", folder.string()));
  }
  if (!std::filesystem::is_directory(folder)) {
    throw ConfigError(fmt::format("'{}' is a file; name the folder of a run (the one with metrics.jsonl)",
                                  folder.string()));
  }
  if (!std::filesystem::exists(folder / "resolved_config.yaml") &&
      !std::filesystem::exists(folder / train::kMetricsFile)) {
    throw ConfigError(fmt::format("'{}' is no run folder: it has neither resolved_config.yaml nor {}",
                                  folder.string(), train::kMetricsFile));
  }
}

std::string last_line(const std::string& text) {
  const size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const size_t begin = text.rfind('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

void flatten_config(const config::Node& node, const std::string& path,
                    std::vector<std::pair<std::string, std::string>>& flat) {
  switch (node.kind) {
    case config::Node::Kind::kNull:
      flat.emplace_back(path, "null");
      break;
    case config::Node::Kind::kScalar:
      flat.emplace_back(path, node.text);
      break;
    case config::Node::Kind::kList:
      for (size_t i = 0; i < node.items.size(); ++i) {
        flatten_config(node.items[i], fmt::format("{}.{}", path, i), flat);
      }
      if (node.items.empty()) flat.emplace_back(path, "[]");
      break;
    case config::Node::Kind::kMap:
      for (const auto& entry : node.entries) {
        flatten_config(entry.value, path.empty() ? entry.key : path + "." + entry.key, flat);
      }
      break;
  }
}

}  // namespace

const train::MetricSeries* RunData::series(const std::string& name_of_series) const {
  const auto it = metrics.find(name_of_series);
  return it == metrics.end() || it->second.steps.empty() ? nullptr : &it->second;
}

std::optional<std::string> RunData::config_value(const std::string& path) const {
  const config::Node* node = &config;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    node = node->find(path.substr(begin, end - begin));
    if (!node) return std::nullopt;
    begin = end + 1;
  }
  if (node->kind != config::Node::Kind::kScalar) return std::nullopt;
  return node->text;
}

RunData read_run(const std::filesystem::path& given) {
  const auto folder = std::filesystem::absolute(given).lexically_normal();
  check_is_run(folder);
  RunData run{.folder = folder.has_filename() ? folder : folder.parent_path()};
  if (std::filesystem::exists(folder / train::kMetricsFile)) {
    run.metrics = train::read_metrics(folder / train::kMetricsFile);
  }
  run.status = train::read_run_status(folder);
  run.config_text = read_optional_file(folder / "resolved_config.yaml");
  if (!run.config_text.empty()) {
    run.config = config::parse_yaml((folder / "resolved_config.yaml").string(), run.config_text);
  }
  run.command = last_line(read_optional_file(folder / "command.txt"));
  for (const int64_t step : routing_steps(folder)) {
    run.routing.push_back(read_routing_record(routing_file(folder, step)));
  }
  run.sample = read_optional_file(folder / kSampleFile);
  run.name = run.config_value("run.name").value_or(run.folder.filename().string());
  return run;
}

std::vector<std::pair<std::string, std::string>> flat_config(const config::Node& node) {
  std::vector<std::pair<std::string, std::string>> flat;
  flatten_config(node, "", flat);
  return flat;
}

}  // namespace conclave::analyze
