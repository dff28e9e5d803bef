// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/checkpoint_store.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::train {

namespace {

constexpr const char* kLatestLink = "latest";

// The step of a folder name that step_folder makes, and of no other spelling.
std::optional<int64_t> step_of_name(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* end = name.data() + name.size();
  int64_t step = 0;
  const auto result = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (result.ec != std::errc() || result.ptr != end || step < 0) return std::nullopt;
  return name == fmt::format("step-{:08}", step) ? std::optional(step) : std::nullopt;
}

// "step-00000012.tmp" and the like: left by a save that did not end, or by an interrupted deletion.
bool is_unfinished(const std::string& name) {
  return name.ends_with(".tmp") && step_of_name(name.substr(0, name.find('.'))).has_value();
}

std::vector<std::string> entry_names(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw Error(fmt::format("cannot list '{}': {}", folder.string(), error.message()), Error::Kind::kData);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Throws Error unless the folder is a whole checkpoint of this very step.
void check_step_folder(const std::filesystem::path& folder, int64_t step) {
  std::error_code ignored;  // what cannot be inspected cannot be read either, and says so below
  if (std::filesystem::is_symlink(std::filesystem::symlink_status(folder, ignored))) {
    throw Error(fmt::format("'{}' is a link, not a checkpoint folder", folder.string()), Error::Kind::kData);
  }
  const Checkpoint checkpoint(folder);
  if (checkpoint.manifest().step != step) {
    throw Error(fmt::format("'{}' holds step {}: the folder was renamed", folder.string(),
                            checkpoint.manifest().step),
                Error::Kind::kData);
  }
}

}  // namespace

CheckpointStore::CheckpointStore(std::filesystem::path folder, Retention retention, Log log,
                                 FileOpener open_file)
    : folder_(std::filesystem::absolute(folder)),  // the current folder may change later
      retention_(retention),
      log_(std::move(log)),
      open_file_(std::move(open_file)) {
  const auto positive = [](const std::optional<int64_t>& value) { return !value || *value > 0; };
  CONCLAVE_CHECK(positive(retention_.keep_latest_k) && positive(retention_.keep_every),
                 "keep_latest_k and keep_every must be positive, or absent to keep everything");
}

std::filesystem::path CheckpointStore::step_folder(int64_t step) const {
  return folder_ / fmt::format("step-{:08}", step);
}

std::vector<int64_t> CheckpointStore::list(std::vector<std::string>* ignored) const {
  std::vector<int64_t> steps;
  for (const auto& name : entry_names(folder_)) {
    std::string reason;
    if (const auto step = step_of_name(name)) {
      try {
        check_step_folder(folder_ / name, *step);
        steps.push_back(*step);
      } catch (const Error& error) {
        reason = error.what();
      }
    } else if (is_unfinished(name)) {
      reason = fmt::format("'{}' is an unfinished save; the next save removes it", (folder_ / name).string());
    }
    if (ignored && !reason.empty()) ignored->push_back(reason);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<int64_t> CheckpointStore::latest() const {
  std::vector<std::string> ignored;
  const auto steps = list(&ignored);
  for (const auto& reason : ignored) log_.warn(fmt::format("checkpoint passed over: {}", reason));
  return steps.empty() ? std::nullopt : std::optional(steps.back());
}

Checkpoint CheckpointStore::open(int64_t step) const {
  std::error_code ignored;
  if (std::filesystem::symlink_status(step_folder(step), ignored).type() ==
      std::filesystem::file_type::not_found) {
    const auto steps = list();
    throw Error(fmt::format("'{}' holds no checkpoint of step {}; steps there: {}", folder_.string(), step,
                            steps.empty() ? "none" : fmt::format("{}", fmt::join(steps, ", "))),
                Error::Kind::kData);
  }
  check_step_folder(step_folder(step), step);
  return Checkpoint(step_folder(step));
}

void CheckpointStore::remove_unfinished() const {
  for (const auto& name : entry_names(folder_)) {
    if (!is_unfinished(name)) continue;
    log_.warn(fmt::format("removing '{}', left by an unfinished save", (folder_ / name).string()));
    std::error_code error;
    std::filesystem::remove_all(folder_ / name, error);
    if (error) log_.warn(fmt::format("cannot remove '{}': {}", (folder_ / name).string(), error.message()));
  }
}

// Deletes only what list() calls a checkpoint. A folder is renamed first, so that a deletion that is cut
// short leaves no half checkpoint under a good name.
void CheckpointStore::retain(int64_t saved_step) const {
  if (!retention_.keep_latest_k) return;
  const auto steps = list();
  const size_t kept = std::min(steps.size(), static_cast<size_t>(*retention_.keep_latest_k));
  for (size_t i = 0; i + kept < steps.size(); ++i) {
    const int64_t step = steps[i];
    const bool milestone = retention_.keep_every && step % *retention_.keep_every == 0;
    if (step == saved_step || milestone || protected_.count(step) != 0) continue;
    const auto doomed = step_folder(step).string() + ".deleted.tmp";
    std::error_code error;
    std::filesystem::rename(step_folder(step), doomed, error);
    if (!error) std::filesystem::remove_all(doomed, error);
    if (error) {
      log_.warn(fmt::format("cannot delete the old checkpoint '{}': {}", step_folder(step).string(),
                            error.message()));
    }
  }
}

void CheckpointStore::link_latest(int64_t step) const {
  const auto link = folder_ / kLatestLink;
  const auto temporary = folder_ / fmt::format("{}.tmp", kLatestLink);
  std::error_code error;
  std::filesystem::remove(temporary, error);
  std::filesystem::create_directory_symlink(step_folder(step).filename(), temporary, error);
  if (!error) std::filesystem::rename(temporary, link, error);
  if (!error) return;
  log_.warn(fmt::format("cannot move the link '{}': {}; the checkpoint itself is complete", link.string(),
                        error.message()));
  std::filesystem::remove(temporary, error);
}

}  // namespace conclave::train
