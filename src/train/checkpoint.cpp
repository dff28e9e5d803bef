// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/checkpoint.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"

namespace conclave::train {

namespace {

std::string list_shortly(std::vector<std::string> names) {
  constexpr size_t kShown = 10;
  const size_t total = names.size();
  names.resize(std::min(kShown, total));
  return fmt::format("{}{}", fmt::join(names, ", "),
                     total > kShown ? fmt::format(" and {} more", total - kShown) : "");
}

// What is wrong with an opened file's tensors; empty when nothing is.
std::string tensor_problems(const SafetensorsFile& file, const CheckpointFile& entry) {
  std::vector<std::string> damaged, unknown, missing;
  for (const auto& tensor : file.tensors()) {
    const auto stated = entry.tensors.find(tensor.name);
    if (stated == entry.tensors.end()) {
      unknown.push_back(tensor.name);
    } else if (stated->second != xxh3_64(tensor.bytes)) {
      damaged.push_back(tensor.name);
    }
  }
  for (const auto& [name, checksum] : entry.tensors) {
    if (!file.contains(name)) missing.push_back(name);
  }
  std::vector<std::string> parts;
  if (!damaged.empty()) parts.push_back(fmt::format("damaged tensors: {}", list_shortly(damaged)));
  if (!unknown.empty())
    parts.push_back(fmt::format("tensors that the manifest lacks: {}", list_shortly(unknown)));
  if (!missing.empty()) parts.push_back(fmt::format("missing tensors: {}", list_shortly(missing)));
  return fmt::format("{}", fmt::join(parts, "; "));
}

[[noreturn]] void refuse_checkpoint(const std::string& problem) {
  throw Error(fmt::format("{}; restore the file from a copy or use another checkpoint", problem),
              Error::Kind::kData);
}

// Sizes, tensors, whole file. Throws Error.
SafetensorsFile open_verified(const std::filesystem::path& path, const CheckpointFile& entry) {
  const MappedFile whole(path);
  if (whole.bytes().size() != entry.size) {
    refuse_checkpoint(fmt::format("'{}' has {} bytes, its manifest says {}", path.string(),
                                  whole.bytes().size(), entry.size));
  }
  SafetensorsFile file(path);
  if (const auto problem = tensor_problems(file, entry); !problem.empty()) {
    refuse_checkpoint(fmt::format("'{}': {}", path.string(), problem));
  }
  if (xxh3_64(whole.bytes()) != entry.checksum) {
    refuse_checkpoint(
        fmt::format("'{}': its header is damaged (checksum of the file differs)", path.string()));
  }
  return file;
}

}  // namespace

Checkpoint::Checkpoint(std::filesystem::path folder) : folder_(std::move(folder)) {
  const auto path = folder_ / kManifestFile;
  manifest_ = parse_manifest(read_file(path), path.string());
  for (const auto& file : manifest_.files) {
    const auto place = folder_ / file.name;
    std::error_code error;
    const auto size = std::filesystem::file_size(place, error);
    if (error) refuse_checkpoint(fmt::format("'{}': {}", place.string(), error.message()));
    if (size != file.size) {
      refuse_checkpoint(
          fmt::format("'{}' has {} bytes, its manifest says {}", place.string(), size, file.size));
    }
  }
}

const CheckpointFile& Checkpoint::entry(const std::string& name) const {
  std::vector<std::string> names;
  for (const auto& file : manifest_.files) {
    if (file.name == name) return file;
    names.push_back(file.name);
  }
  throw Error(fmt::format("the checkpoint '{}' has no file '{}'; it has: {}", folder_.string(), name,
                          fmt::join(names, ", ")),
              Error::Kind::kData);
}

SafetensorsFile Checkpoint::file(const std::string& name) const {
  return open_verified(folder_ / name, entry(name));
}

std::string Checkpoint::state() const {
  const auto& stated = entry(kStateFile);
  std::string text = read_file(folder_ / kStateFile);
  if (text.size() != stated.size || xxh3_64(bytes_of(text)) != stated.checksum) {
    refuse_checkpoint(fmt::format("'{}' is damaged: its checksum differs", (folder_ / kStateFile).string()));
  }
  return text;
}

std::vector<std::string> Checkpoint::problems() const {
  std::vector<std::string> result;
  for (const auto& file : manifest_.files) {
    try {
      if (file.name == kStateFile) {
        state();
      } else {
        open_verified(folder_ / file.name, file);
      }
    } catch (const Error& error) {
      result.push_back(error.what());
    }
  }
  return result;
}

void Checkpoint::verify() const {
  const auto found = problems();
  if (!found.empty()) throw Error(fmt::format("{}", fmt::join(found, "\n")), Error::Kind::kData);
}

}  // namespace conclave::train
