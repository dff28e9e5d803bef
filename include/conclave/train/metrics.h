// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "conclave/core/log.h"

// Numbers of a run over its steps. `metrics.jsonl` is the source of truth for resume, reports and `analyze`;
// other sinks are views of it. docs/metrics.md describes the files.
namespace conclave::train {

inline constexpr const char* kMetricsFile = "metrics.jsonl";

struct Metric {
  std::string name = {};  // "train/loss"; "step" and "time" are taken
  double value = 0.0;
};

class MetricsSink {
 public:
  virtual ~MetricsSink() = default;
  // `wall_time`: seconds since 1970. Steps must not fall, and a name stands once a step; throws Error
  // otherwise and when the source of truth cannot be written.
  virtual void emit(int64_t step, double wall_time, std::span<const Metric> metrics) = 0;
  // A text beside the numbers (the config, a sample). Sinks that hold only numbers drop it.
  virtual void text(int64_t /*step*/, double /*wall_time*/, const std::string& /*name*/,
                    const std::string& /*text*/) {}
};

struct MetricsSinkOptions {
  std::filesystem::path folder = {};  // the run folder
  // The step that the run continues from: everything later that an interrupted run wrote is replaced. -1: the
  // run starts from nothing, and so do its metrics.
  int64_t last_step = -1;
  Log log = {};
};

struct MetricsSinkInfo {
  std::string name = {};
  std::string doc = {};
  std::function<std::unique_ptr<MetricsSink>(const MetricsSinkOptions&)> make = {};
};

// "jsonl" and "tensorboard". A value: a program adds its own sinks to its copy.
std::vector<MetricsSinkInfo> builtin_metrics_sinks();

// The sinks called `names` out of `table`, in that order. Throws ConfigError for an unknown or repeated name.
std::vector<std::unique_ptr<MetricsSink>> make_metrics_sinks(const std::vector<std::string>& names,
                                                             const std::vector<MetricsSinkInfo>& table,
                                                             const MetricsSinkOptions& options);

struct MetricSeries {
  std::vector<int64_t> steps = {};  // rising
  std::vector<double> times = {};
  std::vector<double> values = {};  // NaN where the file says null (the value was not finite)
};

// All series of a metrics.jsonl by name. A last line without its end, which a crash or a writer at work
// leaves, is passed over; anything else that is not as written by the sink is an Error (kData) with
// file:line.
std::map<std::string, MetricSeries> read_metrics(const std::filesystem::path& path);

// Drops the lines of steps after `last_step` and a last line without its end; the file is replaced
// atomically, and only if something is dropped. An absent file stays absent.
void rewind_metrics(const std::filesystem::path& path, int64_t last_step);

}  // namespace conclave::train
