// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "conclave/analyze/routing_record.h"
#include "conclave/config/node.h"
#include "conclave/train/metrics.h"
#include "conclave/train/run_status.h"

namespace conclave::analyze {

inline constexpr const char* kSampleFile = "sample.txt";

// What a run folder holds, as far as it holds it: a run that is young, killed or without MoE layers has gaps.
struct RunData {
  std::filesystem::path folder = {};
  std::string name = {};  // run.name of its config, else the folder's
  std::map<std::string, train::MetricSeries> metrics = {};
  std::optional<train::RunStatus> status = {};
  std::string config_text = {};               // resolved_config.yaml
  config::Node config = config::Node::map();  // the same as a tree
  std::string command = {};                   // of the last start
  std::vector<RoutingRecord> routing = {};    // steps rising
  std::string sample = {};                    // sample.txt

  // The series `name`, or null when there is none or it is empty.
  const train::MetricSeries* series(const std::string& name) const;
  // The value of the config at a dotted path ("model.moe.num_experts"), or nothing.
  std::optional<std::string> config_value(const std::string& path) const;
};

// Throws ConfigError when the folder is no run, Error (kData) that names file and place when a file is
// damaged.
RunData read_run(const std::filesystem::path& folder);

// Every scalar of the tree by its dotted path, in the order of the file; lists item by item.
std::vector<std::pair<std::string, std::string>> flat_config(const config::Node& node);

}  // namespace conclave::analyze
