// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "conclave/comm/communicator.h"
#include "conclave/core/log.h"
#include "conclave/train/run_lock.h"
#include "conclave/train/run_status.h"

namespace conclave::train {

// What is written into a run folder before the first step.
struct RunRecord {
  std::string resolved_config = {};   // resolved_config.yaml
  std::string overrides = {};         // overrides.txt
  std::string environment_json = {};  // environment.json
  std::string command = {};           // a line of command.txt; every start adds one
};

// Differences between the config that a folder was made with (the text of its resolved_config.yaml) and the
// present one, one line a key; empty: the same run.
using ConfigDifferences = std::function<std::vector<std::string>(const std::string& old_config)>;

enum class RunStart {
  kFresh,     // nothing to continue: new folder, or one whose run ended before its first checkpoint
  kContinue,  // the same config and at least one checkpoint
  kFinished,  // the same config and the run is done: show its result
};

// The folder of one run: `resume: auto`, `--fresh`, the frozen inputs, STATUS.json and the lock. One process
// of a run (rank 0) constructs it; a second one, from whatever command, is refused as long as the first
// lives.
class RunDirectory {
 public:
  // `move_aside` (--fresh): a folder that is there becomes FOLDER.old-1, .old-2, ... Throws ConfigError when
  // the folder belongs to another config (with the differences and the remedy) or holds something that is no
  // run, Error when it cannot be written or another process trains in it.
  RunDirectory(const std::filesystem::path& folder, const RunRecord& record,
               const ConfigDifferences& differences, bool move_aside, const Log& log = {});

  // The folder for all ranks of a run: rank 0 calls `open`, and the others, which see the same file system,
  // learn what it found; they write no status. When `open` throws, all throw. Called by all ranks.
  static RunDirectory of_ranks(comm::Communicator& ranks, const std::function<RunDirectory()>& open);

  RunStart start() const { return start_; }
  std::optional<int64_t> resume_step() const {
    return resume_step_;
  }  // kContinue, kFinished: the newest checkpoint
  const std::filesystem::path& folder() const { return folder_; }  // absolute
  std::filesystem::path checkpoints() const { return folder_ / "checkpoints"; }

  void write_status(const RunStatus& status) const;

 private:
  RunDirectory() = default;
  void decide(const ConfigDifferences& differences, const Log& log);
  void refuse_foreign_folder() const;
  void write_record(const RunRecord& record) const;

  std::filesystem::path folder_;
  RunLock lock_;
  RunStart start_ = RunStart::kFresh;
  std::optional<int64_t> resume_step_;
  bool writes_status_ = true;
};

}  // namespace conclave::train
