// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/safetensors_index.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/json_reader.h"

namespace conclave::train {

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

ShardedSafetensors::ShardedSafetensors(const std::filesystem::path& index_file) : index_file_(index_file) {
  const std::string place = fmt::format("'{}'", index_file.string());
  const MappedFile mapped(index_file);
  const auto bytes = mapped.bytes();
  if (bytes.size() > kSafetensorsMaxHeaderBytes) {
    throw Error(fmt::format("{}: {} bytes, the limit is {}", place, bytes.size(), kSafetensorsMaxHeaderBytes),
                Error::Kind::kData);
  }
  const Json json = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, place);
  for (const auto& [tensor, shard] : JsonReader(json, place).at("weight_map").members()) {
    if (!is_plain_file_name(shard.text())) {
      throw Error(fmt::format("{}: {} is not the name of a file beside the index; refused", shard.place(),
                              json_quote(shard.text())),
                  Error::Kind::kData);
    }
    shard_of_.emplace(tensor, shard.text());
  }
  for (const auto& [tensor, shard] : shard_of_) {
    if (shards_.count(shard) == 0) {
      shards_.emplace(shard, SafetensorsFile(index_file.parent_path() / shard));
    }
  }
  check_agreement();
}

void ShardedSafetensors::check_agreement() const {
  std::vector<std::string> missing, unexpected;
  for (const auto& [tensor, shard] : shard_of_) {
    if (!shards_.at(shard).contains(tensor)) missing.push_back(fmt::format("{} (in {})", tensor, shard));
  }
  for (const auto& [name, shard] : shards_) {
    for (const auto& tensor : shard.tensors()) {
      const auto found = shard_of_.find(tensor.name);
      if (found == shard_of_.end() || found->second != name) {
        unexpected.push_back(fmt::format("{} (in {})", tensor.name, name));
      }
    }
  }
  if (missing.empty() && unexpected.empty()) return;
  const auto list = [](const char* title, std::vector<std::string> names) {
    if (names.empty()) return std::string();
    const size_t total = names.size();
    names.resize(std::min<size_t>(total, 8));
    return fmt::format("; {} {}: {}{}", total, title, fmt::join(names, ", "), total > 8 ? ", ..." : "");
  };
  throw Error(fmt::format("'{}' and its shards do not belong together{}{}", index_file_.string(),
                          list("missing in the shards", missing), list("not in the index", unexpected)),
              Error::Kind::kData);
}

std::vector<std::string> ShardedSafetensors::names() const {
  std::vector<std::string> result;
  for (const auto& [tensor, shard] : shard_of_) result.push_back(tensor);
  return result;
}

const TensorView& ShardedSafetensors::at(const std::string& name) const {
  const auto found = shard_of_.find(name);
  if (found != shard_of_.end()) return shards_.at(found->second).at(name);
  throw Error(fmt::format("'{}' lists no tensor '{}'; {}", index_file_.string(), name,
                          describe_near_names(name, names())),
              Error::Kind::kData);
}

}  // namespace conclave::train
