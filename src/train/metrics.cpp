// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/metrics.h"

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "conclave/config/problems.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/metrics_lines.h"
#include "conclave/train/tensorboard.h"

namespace conclave::train {

namespace {

class JsonlSink : public MetricsSink {
 public:
  explicit JsonlSink(const MetricsSinkOptions& options) : path_(options.folder / kMetricsFile) {
    rewind_metrics(path_, options.last_step);
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail("open");
    for_each_metrics_line(read_file(path_), path_.string(), [this](const MetricsLine& line, size_t) {
      if (line.step != last_step_) given_before_.clear();
      for (const auto& metric : line.metrics) given_before_[metric.name] = metric.value;
      note(line.step, line.metrics);
    });
  }
  ~JsonlSink() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  JsonlSink(const JsonlSink&) = delete;
  JsonlSink& operator=(const JsonlSink&) = delete;

  // A run that was killed behind its last checkpoint's step, say after the final evaluation, gives what it
  // had given there once more; an equal value is not written twice, another one is an error.
  void emit(int64_t step, double wall_time, std::span<const Metric> all) override {
    if (step != last_step_) given_before_.clear();
    std::vector<Metric> metrics;
    for (const auto& metric : all) {
      const auto before = given_before_.find(metric.name);
      if (before == given_before_.end() || !same(before->second, metric.value)) {
        metrics.push_back(metric);
      } else {
        given_before_.erase(before);
      }
    }
    if (metrics.empty() && !all.empty()) return;
    const std::string line = render_metrics_line(step, wall_time, metrics);
    if (step < last_step_) {
      throw Error(fmt::format("metrics of step {} come after those of step {}", step, last_step_));
    }
    for (const auto& metric : metrics) {
      if (step == last_step_ && names_.count(metric.name) != 0) {
        throw Error(fmt::format("the metric '{}' was already given at step {}", metric.name, step));
      }
    }
    append(line);
    note(step, metrics);
  }

 private:
  // Non-finite values are stored alike, as null.
  static bool same(double a, double b) { return a == b || (!std::isfinite(a) && !std::isfinite(b)); }
  void note(int64_t step, std::span<const Metric> metrics) {
    if (step != last_step_) names_.clear();
    last_step_ = step;
    for (const auto& metric : metrics) names_.insert(metric.name);
  }
  // One write(2), so that a reader at any moment sees whole lines but for the last. What a full disk took of
  // a line is taken back, so that a later line does not join it.
  void append(const std::string& line) {
    const off_t before = ::lseek(descriptor_, 0, SEEK_END);
    ssize_t count = -1;
    do {
      count = ::write(descriptor_, line.data(), line.size());
    } while (count < 0 && errno == EINTR);
    if (count == static_cast<ssize_t>(line.size())) return;
    if (count >= 0) errno = ENOSPC;
    const int reason = errno;
    if (count > 0 && ::ftruncate(descriptor_, before) != 0) fail("shorten");
    errno = reason;
    fail("write");
  }
  [[noreturn]] void fail(const char* action) const {
    const std::string reason = std::strerror(errno);
    throw Error(fmt::format("cannot {} '{}': {}", action, path_.string(), reason));
  }

  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t last_step_ = -1;
  std::set<std::string> names_;                 // given at last_step_
  std::map<std::string, double> given_before_;  // of these, by an earlier start and not yet given again
};

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A view of the numbers: when it fails on the way it is given up with a warning, and the run goes on.
class TensorboardSink : public MetricsSink {
 public:
  explicit TensorboardSink(const MetricsSinkOptions& options)
      : log_(options.log),
        writer_(std::in_place, options.folder / "tb", seconds_since_1970(), options.last_step + 1) {}
  void emit(int64_t step, double wall_time, std::span<const Metric> metrics) override {
    attempt([&] { writer_->scalars(step, wall_time, metrics); });
  }
  void text(int64_t step, double wall_time, const std::string& name, const std::string& text) override {
    attempt([&] { writer_->text(step, wall_time, name, text); });
  }

 private:
  template <class F>
  void attempt(F&& write) {
    if (!writer_) return;
    try {
      write();
    } catch (const Error& error) {
      log_.warn(fmt::format("no more TensorBoard events from here on ({}); {} goes on", error.what(),
                            kMetricsFile));
      writer_.reset();
    }
  }

  Log log_;
  std::optional<TensorboardWriter> writer_;
};

}  // namespace

std::vector<MetricsSinkInfo> builtin_metrics_sinks() {
  return {
      {.name = "jsonl",
       .doc = "metrics.jsonl, one JSON object a line: the source of truth for resume and reports.",
       .make = [](const MetricsSinkOptions& options) { return std::make_unique<JsonlSink>(options); }},
      {.name = "tensorboard",
       .doc = "Event files in tb/, for TensorBoard and for tools that read its files.",
       .make = [](const MetricsSinkOptions& options) { return std::make_unique<TensorboardSink>(options); }}};
}

std::vector<std::unique_ptr<MetricsSink>> make_metrics_sinks(const std::vector<std::string>& names,
                                                             const std::vector<MetricsSinkInfo>& table,
                                                             const MetricsSinkOptions& options) {
  std::vector<const MetricsSinkInfo*> chosen;
  std::set<std::string> seen;
  for (const auto& name : names) {
    const auto found =
        std::find_if(table.begin(), table.end(), [&](const auto& info) { return info.name == name; });
    if (found == table.end()) {
      std::vector<std::string> known;
      for (const auto& info : table) known.push_back(info.name);
      throw ConfigError(
          fmt::format("logging.metrics: {}", config::unknown_name("metrics sink", name, known)));
    }
    if (!seen.insert(name).second) throw ConfigError(fmt::format("logging.metrics: '{}' stands twice", name));
    chosen.push_back(&*found);
  }
  std::vector<std::unique_ptr<MetricsSink>> sinks;
  for (const auto* info : chosen) sinks.push_back(info->make(options));
  return sinks;
}

}  // namespace conclave::train
