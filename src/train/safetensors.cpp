// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <tuple>

#include <fmt/format.h>

#include "conclave/config/problems.h"
#include "conclave/core/error.h"
#include "conclave/train/json_reader.h"
#include "conclave/train/safetensors_dtypes.h"

namespace conclave::train {

static_assert(std::endian::native == std::endian::little,
              "safetensors bytes are used as they stand in the file");

namespace {

[[noreturn]] void fail_safetensors(const std::string& file, const std::string& problem) {
  throw Error(
      fmt::format("'{}' is not a valid safetensors file: {}; copy or download it again", file, problem),
      Error::Kind::kData);
}

[[noreturn]] void fail_tensor(const std::string& file, const std::string& tensor,
                              const std::string& problem) {
  fail_safetensors(file, fmt::format("tensor {}: {}", json_quote(tensor), problem));
}

struct TensorEntry {
  TensorView view;
  uint64_t begin = 0;
  uint64_t end = 0;
};

std::string_view safetensors_header(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < 8) fail_safetensors(file, fmt::format("{} bytes, at least 8 are needed", bytes.size()));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > kSafetensorsMaxHeaderBytes) {
    fail_safetensors(file, fmt::format("it declares a header of {} bytes, the limit is {}", length,
                                       kSafetensorsMaxHeaderBytes));
  }
  if (length > bytes.size() - 8) {
    fail_safetensors(file, fmt::format("it declares a header of {} bytes, but only {} follow (truncated?)",
                                       length, bytes.size() - 8));
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  if (header.empty() || header.front() != '{') fail_safetensors(file, "the header does not begin with '{'");
  return header;
}

TensorEntry read_safetensors_entry(const std::string& file, const std::string& name, const JsonReader& json) {
  if (name.size() > kSafetensorsMaxNameBytes) {
    fail_tensor(file, name.substr(0, 40),
                fmt::format("its name has {} bytes, the limit is {}", name.size(), kSafetensorsMaxNameBytes));
  }
  for (const auto& [key, value] : json.members()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      fail_tensor(file, name, fmt::format("unknown key {}", json_quote(key)));
    }
  }
  TensorEntry entry{.view = {.name = name, .dtype = json.at("dtype").text(), .shape = {}, .bytes = {}}};
  const auto shape = json.at("shape").items();
  if (shape.size() > kSafetensorsMaxRank) {
    fail_tensor(file, name, fmt::format("{} dimensions, the limit is {}", shape.size(), kSafetensorsMaxRank));
  }
  for (const auto& size : shape) entry.view.shape.push_back(static_cast<int64_t>(size.count()));
  const auto offsets = json.at("data_offsets").items();
  if (offsets.size() != 2) fail_tensor(file, name, "data_offsets needs two numbers");
  entry.begin = offsets[0].count();
  entry.end = offsets[1].count();
  if (entry.begin > entry.end) {
    fail_tensor(file, name, fmt::format("data_offsets [{}, {}] run backwards", entry.begin, entry.end));
  }
  std::string problem;
  const auto size = tensor_bytes(entry.view.dtype, entry.view.shape, problem);
  if (!size) fail_tensor(file, name, problem);
  if (*size != entry.end - entry.begin) {
    fail_tensor(
        file, name,
        fmt::format("shape [{}] of {} takes {} bytes, data_offsets span {}",
                    fmt::join(entry.view.shape, ", "), entry.view.dtype, *size, entry.end - entry.begin));
  }
  return entry;
}

// Every byte of the buffer belongs to exactly one tensor.
void check_safetensors_layout(const std::string& file, const std::vector<TensorEntry>& sorted,
                              uint64_t buffer_size) {
  uint64_t expected = 0;
  for (const auto& entry : sorted) {
    if (entry.begin != expected) {
      fail_tensor(file, entry.view.name,
                  fmt::format("begins at byte {} of the buffer, expected {} ({})", entry.begin, expected,
                              entry.begin < expected ? "overlap" : "hole"));
    }
    expected = entry.end;
  }
  if (expected == buffer_size) return;
  if (sorted.empty() || expected < buffer_size) {
    fail_safetensors(file, fmt::format("{} bytes at the end belong to no tensor", buffer_size - expected));
  }
  fail_tensor(file, sorted.back().view.name,
              fmt::format("ends at byte {} of the buffer, which has {} (truncated?)", expected, buffer_size));
}

}  // namespace

SafetensorsContent parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  const std::string_view header = safetensors_header(bytes, file);
  const std::string place = fmt::format("'{}': safetensors header", file);
  const Json json = parse_json(header, place, {.depth = 4, .values = 16 * kSafetensorsMaxTensors});
  SafetensorsContent content;
  std::vector<TensorEntry> entries;
  const auto* root = std::get_if<Json::Map>(&json.value);
  if (root && root->size() > kSafetensorsMaxTensors + 1) {  // one may be the metadata
    fail_safetensors(file, fmt::format("more than {} tensors", kSafetensorsMaxTensors));
  }
  for (const auto& [name, value] : JsonReader(json, place).members()) {
    if (name == "__metadata__") {
      for (const auto& [key, text] : value.members()) content.metadata.emplace(key, text.text());
      continue;
    }
    entries.push_back(read_safetensors_entry(file, name, value));
  }
  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.view.name) < std::tie(b.begin, b.end, b.view.name);
  });
  const auto buffer = bytes.subspan(8 + header.size());
  check_safetensors_layout(file, entries, buffer.size());
  for (auto& entry : entries) {
    entry.view.bytes = buffer.subspan(entry.begin, entry.end - entry.begin);
    content.tensors.push_back(std::move(entry.view));
  }
  return content;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path), mapped_(path), content_(parse_safetensors(mapped_.bytes(), path.string())) {
  for (size_t i = 0; i < content_.tensors.size(); ++i) index_.emplace(content_.tensors[i].name, i);
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> result;
  for (const auto& tensor : content_.tensors) result.push_back(tensor.name);
  std::sort(result.begin(), result.end());
  return result;
}

const TensorView& SafetensorsFile::at(const std::string& name) const {
  const auto found = index_.find(name);
  if (found != index_.end()) return content_.tensors[found->second];
  throw Error(
      fmt::format("'{}' holds no tensor '{}'; {}", path_.string(), name, describe_near_names(name, names())),
      Error::Kind::kData);
}

std::string describe_near_names(const std::string& name, const std::vector<std::string>& known) {
  constexpr size_t kShown = 8;
  if (known.empty()) return "it holds none";
  std::string text;
  if (const auto near = config::nearest(name, known); !near.empty())
    text = fmt::format("did you mean '{}'? ", near);
  const std::vector<std::string> shown(known.begin(), known.begin() + std::min(kShown, known.size()));
  return fmt::format("{}it holds {} tensor{}: {}{}", text, known.size(), known.size() == 1 ? "" : "s",
                     fmt::join(shown, ", "), known.size() > kShown ? ", ..." : "");
}

}  // namespace conclave::train
