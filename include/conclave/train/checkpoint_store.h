// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "conclave/comm/communicator.h"
#include "conclave/core/log.h"
#include "conclave/train/checkpoint.h"
#include "conclave/train/file_writer.h"

namespace conclave::train {

// A safetensors file of a checkpoint to be saved. The views must stay unchanged during save.
struct FileContents {
  std::string name = {};  // "model.safetensors": letters, digits, '.', '_' and '-'
  std::vector<TensorView> tensors = {};
  SafetensorsMetadata metadata = {};
};

struct CheckpointContents {
  int64_t step = 0;
  int64_t tokens = 0;
  std::string config_hash = {};
  std::map<std::string, std::string> attributes = {};
  std::string state = "{}";  // JSON text of state.json
  std::vector<FileContents> files = {};
};

// What is kept besides the checkpoint saved last and protected ones. Counts go by step number.
struct Retention {
  std::optional<int64_t> keep_latest_k = std::nullopt;  // none: all
  std::optional<int64_t> keep_every = std::nullopt;     // multiples of it are kept for ever
};

// The checkpoints of one run. The ranks of one run write (the run folder's lock sees to that); any number may
// read.
class CheckpointStore {
 public:
  CheckpointStore(std::filesystem::path folder, Retention retention = {}, Log log = {},
                  FileOpener open_file = create_disk_file);

  // Writes `step-N.tmp/`, makes every byte durable, the manifest last, renames it into place; then deletes
  // what the retention no longer keeps and moves the link `latest` (a failure of these two is a warning).
  // Throws Error (kFailed) that names the bytes needed and free; nothing of the new checkpoint stays behind
  // and older ones are untouched. Saving a step that is there already replaces it.
  void save(const CheckpointContents& contents) const;
  // The same by several ranks, which see one file system: each gives its own `files`, maybe none; all else is
  // rank 0's, and so is the manifest. Called by all; when it fails on one, it throws on all, and no rank's
  // files stay behind.
  void save(const CheckpointContents& contents, comm::Communicator& ranks) const;

  // Folders with a valid manifest, as ascending steps; `ignored` says which other entries were passed over
  // and why.
  std::vector<int64_t> list(std::vector<std::string>* ignored = nullptr) const;
  std::optional<int64_t> latest() const;
  // Throws Error (kData) that lists the steps there are.
  Checkpoint open(int64_t step) const;
  // Retention leaves this step alone from now on: the one that the run continues from.
  void protect(int64_t step) { protected_.insert(step); }

  // The same store with another log.
  CheckpointStore with_log(Log log) const {
    auto store = *this;
    store.log_ = std::move(log);
    return store;
  }

  std::filesystem::path step_folder(int64_t step) const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::vector<CheckpointFile> write_tensors(const std::filesystem::path& temporary,
                                            const CheckpointContents& contents) const;
  void write_manifest(const std::filesystem::path& temporary, const CheckpointContents& contents,
                      std::vector<CheckpointFile> files) const;
  void publish(const std::filesystem::path& temporary, int64_t step) const;
  void remove_unfinished() const;
  void retain(int64_t saved_step) const;
  void link_latest(int64_t step) const;

  std::filesystem::path folder_;
  Retention retention_;
  Log log_;
  FileOpener open_file_;
  std::set<int64_t> protected_;
};

}  // namespace conclave::train
