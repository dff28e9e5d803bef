// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "conclave/train/safetensors.h"

namespace conclave::train {

// The shards behind a `*.safetensors.index.json`. Shard names are plain file names beside the index (nothing
// that leaves the folder); the index and the shards must agree exactly: tensors that a shard lacks and
// tensors that the index does not list are reported apart. Throws Error (kData).
class ShardedSafetensors {
 public:
  explicit ShardedSafetensors(const std::filesystem::path& index_file);

  std::vector<std::string> names() const;  // sorted
  const TensorView& at(const std::string& name) const;
  // The shards by file name.
  const std::map<std::string, SafetensorsFile>& shards() const { return shards_; }

 private:
  void check_agreement() const;

  std::filesystem::path index_file_;
  std::map<std::string, std::string> shard_of_;
  std::map<std::string, SafetensorsFile> shards_;
};

// Whether `name` is one plain component: not empty, no '/', '\\' or NUL, neither "." nor "..", not longer
// than 255.
bool is_plain_file_name(const std::string& name);

}  // namespace conclave::train
