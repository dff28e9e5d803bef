// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "conclave/train/checkpoint.h"

namespace conclave::train {

// Tensors of one or several safetensors files, each under one name: a checkpoint is read the same whatever
// ranks wrote it.
class TensorSet {
 public:
  explicit TensorSet(std::vector<SafetensorsFile> files);
  explicit TensorSet(const std::filesystem::path& file);
  TensorSet(TensorSet&&) = default;
  // The files NAME.safetensors or NAME-00001-of-00004.safetensors and so on of a checkpoint, their checksums
  // recomputed. Throws Error (kData) that names what is damaged, missing or there twice.
  TensorSet(const Checkpoint& checkpoint, const std::string& name);

  bool contains(const std::string& name) const { return places_.count(name) != 0; }
  // Throws Error (kData) that names the files and lists near names.
  const TensorView& at(const std::string& name) const;
  std::vector<std::string> names() const;  // sorted
  // The file that holds a tensor, for messages.
  std::string file_of(const std::string& name) const;
  // Of all files, for messages.
  std::string place() const;

 private:
  struct Place {
    size_t file = 0;
    const TensorView* view = nullptr;
  };
  std::vector<SafetensorsFile> files_;
  std::unordered_map<std::string, Place> places_;
};

}  // namespace conclave::train
