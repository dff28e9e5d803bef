// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/tensor_set.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::train {

namespace {

std::vector<SafetensorsFile> files_of(const Checkpoint& checkpoint, const std::string& name) {
  std::vector<SafetensorsFile> files;
  for (const auto& file : checkpoint.manifest().files) {
    if (file.name == name + ".safetensors" || file.name.rfind(name + "-", 0) == 0)
      files.push_back(checkpoint.file(file.name));
  }
  if (files.empty()) checkpoint.file(name + ".safetensors");  // throws, and lists the files that there are
  return files;
}

std::vector<SafetensorsFile> only(const std::filesystem::path& path) {
  std::vector<SafetensorsFile> files;
  files.emplace_back(path);
  return files;
}

}  // namespace

TensorSet::TensorSet(const std::filesystem::path& file) : TensorSet(only(file)) {}

TensorSet::TensorSet(const Checkpoint& checkpoint, const std::string& name)
    : TensorSet(files_of(checkpoint, name)) {}

TensorSet::TensorSet(std::vector<SafetensorsFile> files) : files_(std::move(files)) {
  for (size_t f = 0; f < files_.size(); ++f) {
    for (const auto& view : files_[f].tensors()) {
      const auto [old, fresh] = places_.insert({view.name, {f, &view}});
      if (fresh) continue;
      throw Error(fmt::format("tensor '{}' stands in '{}' and in '{}'; the files are not of one save",
                              view.name, files_[old->second.file].path().string(), files_[f].path().string()),
                  Error::Kind::kData);
    }
  }
}

const TensorView& TensorSet::at(const std::string& name) const {
  if (const auto it = places_.find(name); it != places_.end()) return *it->second.view;
  throw Error(fmt::format("'{}' holds no tensor '{}'; {}", place(), name, describe_near_names(name, names())),
              Error::Kind::kData);
}

std::vector<std::string> TensorSet::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::string TensorSet::file_of(const std::string& name) const {
  return files_[places_.at(name).file].path().string();
}

std::string TensorSet::place() const {
  if (files_.size() == 1) return files_[0].path().string();
  return fmt::format("{} and {} more", files_[0].path().string(), files_.size() - 1);
}

}  // namespace conclave::train
