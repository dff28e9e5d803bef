// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/run_directory.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "conclave/comm/agreement.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/checkpoint_store.h"

namespace conclave::train {

namespace {

constexpr const char* kConfigFile = "resolved_config.yaml";
constexpr const char* kCommandFile = "command.txt";

// Absolute, so that a later change of the current folder does not matter, and without a slash at the end, so
// that
// ".old-1" can be appended.
std::filesystem::path run_folder_path(const std::filesystem::path& folder) {
  if (folder.empty()) throw ConfigError("run.output_dir is empty; name a folder");
  auto result = std::filesystem::absolute(folder).lexically_normal();
  return result.has_filename() ? result : result.parent_path();
}

bool is_nonempty_folder(const std::filesystem::path& folder) {
  return std::filesystem::is_directory(folder) && !std::filesystem::is_empty(folder);
}

// FOLDER becomes FOLDER.old-N with the first free N. Holds the lock meanwhile, so that no running run is
// moved.
void move_run_aside(const std::filesystem::path& folder, const Log& log) {
  const RunLock lock(folder);
  for (int n = 1;; ++n) {
    const std::filesystem::path aside = fmt::format("{}.old-{}", folder.string(), n);
    if (std::filesystem::exists(std::filesystem::symlink_status(aside))) continue;
    std::filesystem::rename(folder, aside);
    log.info(fmt::format("the old run was moved to '{}'", aside.string()));
    return;
  }
}

}  // namespace

RunDirectory::RunDirectory(const std::filesystem::path& folder, const RunRecord& record,
                           const ConfigDifferences& differences, bool move_aside, const Log& log)
    : folder_(run_folder_path(folder)) {
  try {
    if (std::filesystem::exists(folder_)) refuse_foreign_folder();  // before anything is written there
    if (move_aside && is_nonempty_folder(folder_)) move_run_aside(folder_, log);
    std::filesystem::create_directories(folder_);
    lock_ = RunLock(folder_);
    decide(differences, log);
    if (start_ != RunStart::kFinished) write_record(record);
  } catch (const std::filesystem::filesystem_error& error) {
    throw Error(fmt::format("cannot use the run folder '{}': {}; choose another run.output_dir",
                            folder_.string(), error.code().message()));
  }
}

void RunDirectory::decide(const ConfigDifferences& differences, const Log& log) {
  if (!std::filesystem::exists(folder_ / kConfigFile)) return;
  const auto changed = differences(read_file(folder_ / kConfigFile));
  if (!changed.empty()) {
    throw ConfigError(
        fmt::format("'{}' holds a run of another config:\n  {}\n"
                    "use --fresh to move it aside or another run.output_dir",
                    folder_.string(), fmt::join(changed, "\n  ")));
  }
  resume_step_ = CheckpointStore(checkpoints(), {}, log).latest();
  const auto status = read_run_status(folder_);
  if (status && status->state == RunState::kFinished) {
    start_ = RunStart::kFinished;
  } else if (resume_step_) {
    start_ = RunStart::kContinue;
  }
}

// A folder without a config is ours if it is new, or if a start was cut short before the config, which is
// written last, was there.
void RunDirectory::refuse_foreign_folder() const {
  if (std::filesystem::exists(folder_ / kConfigFile)) return;
  const std::set<std::string> own{"lock",      "overrides.txt", "environment.json", kCommandFile,
                                  kStatusFile, "logs",          "plan.txt"};
  for (const auto& item : std::filesystem::directory_iterator(folder_)) {
    const std::string name = item.path().filename();
    if (own.count(name) != 0 || name.ends_with(".tmp")) continue;
    throw ConfigError(
        fmt::format("'{}' is not empty and holds no run ('{}' is there); choose another run.output_dir",
                    folder_.string(), name));
  }
}

void RunDirectory::write_record(const RunRecord& record) const {
  std::string commands;
  if (std::filesystem::exists(folder_ / kCommandFile)) commands = read_file(folder_ / kCommandFile);
  std::string command = record.command;
  std::replace(command.begin(), command.end(), '\n', ' ');
  write_file_atomically(folder_ / kCommandFile, fmt::format("{}{}\n", commands, command));
  write_file_atomically(folder_ / "environment.json", record.environment_json);
  if (start_ == RunStart::kContinue) return;
  write_file_atomically(folder_ / "overrides.txt", record.overrides);
  write_file_atomically(folder_ / kConfigFile, record.resolved_config);
}

RunDirectory RunDirectory::of_ranks(comm::Communicator& ranks, const std::function<RunDirectory()>& open) {
  const bool first = ranks.rank() == 0;
  RunDirectory directory;
  comm::do_together(ranks, [&] {
    if (first) directory = open();
  });
  int64_t found[2] = {static_cast<int64_t>(directory.start_), directory.resume_step_.value_or(-1)};
  ranks.broadcast({found, 2, comm::DataType::kInt64}, 0);
  directory.folder_ = comm::broadcast_text(ranks, directory.folder_.string());
  directory.start_ = static_cast<RunStart>(found[0]);
  if (found[1] >= 0) directory.resume_step_ = found[1];
  directory.writes_status_ = first;
  return directory;
}

void RunDirectory::write_status(const RunStatus& status) const {
  if (writes_status_) write_run_status(folder_, status);
}

}  // namespace conclave::train
