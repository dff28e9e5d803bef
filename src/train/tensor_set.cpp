// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/tensor_set.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

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

std::pair<std::string, std::string> rows_entry(const std::string& tensor, int64_t first_row,
                                               int64_t num_rows) {
  return {"rows of " + tensor, fmt::format("{} of {}", first_row, num_rows)};
}

namespace {

// "64 of 512", as rows_entry writes it.
std::optional<std::pair<int64_t, int64_t>> parse_rows(const std::string& text) {
  int64_t first = 0, all = 0;
  const char* const end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, first);
  constexpr std::string_view kOf = " of ";
  if (error != std::errc() || std::string_view(next, end).substr(0, kOf.size()) != kOf) return std::nullopt;
  const auto [last, other] = std::from_chars(next + kOf.size(), end, all);
  if (other != std::errc() || last != end || first < 0 || all < 1) return std::nullopt;
  return std::pair(first, all);
}

}  // namespace

TensorSet::TensorSet(std::vector<SafetensorsFile> files) : files_(std::move(files)) {
  for (size_t f = 0; f < files_.size(); ++f) {
    for (const auto& view : files_[f].tensors()) add(f, view);
  }
  for (auto& [name, place] : places_) check(name, place);
}

void TensorSet::add(size_t file, const TensorView& view) {
  Part part{.file = file, .view = &view};
  TensorView outline{.name = view.name, .dtype = view.dtype, .shape = view.shape};
  const auto& metadata = files_[file].metadata();
  if (const auto entry = metadata.find(rows_entry(view.name, 0, 0).first); entry != metadata.end()) {
    const auto rows = parse_rows(entry->second);
    if (!rows || view.shape.empty()) {
      throw Error(fmt::format("{}: '{}' says of tensor '{}': '{}'; the file is not one of ours",
                              files_[file].path().string(), entry->first, view.name, entry->second),
                  Error::Kind::kData);
    }
    part.first_row = rows->first;
    part.num_rows = view.shape[0];
    outline.shape[0] = rows->second;
  } else {
    part.num_rows = view.shape.empty() ? 1 : view.shape[0];
  }
  const auto [old, fresh] = places_.insert({view.name, {outline, {part}}});
  if (fresh) return;
  auto& place = old->second;
  if (place.outline.shape != outline.shape || place.outline.dtype != outline.dtype) {
    throw Error(
        fmt::format("tensor '{}' is {} [{}] in '{}' and {} [{}] in '{}'; the files are not of one save",
                    view.name, place.outline.dtype, fmt::join(place.outline.shape, ", "),
                    files_[place.parts[0].file].path().string(), outline.dtype,
                    fmt::join(outline.shape, ", "), files_[file].path().string()),
        Error::Kind::kData);
  }
  place.parts.push_back(part);
}

// Every row once.
void TensorSet::check(const std::string& name, Place& place) const {
  std::sort(place.parts.begin(), place.parts.end(),
            [](const Part& a, const Part& b) { return a.first_row < b.first_row; });
  const auto file = [&](const Part& part) { return files_[part.file].path().string(); };
  const int64_t rows = place.outline.shape.empty() ? 1 : place.outline.shape[0];
  int64_t next = 0;
  for (size_t i = 0; i < place.parts.size(); ++i) {
    const auto& part = place.parts[i];
    if (part.first_row < next || (i > 0 && rows == 0)) {
      throw Error(fmt::format("tensor '{}' stands in '{}' and in '{}'; the files are not of one save", name,
                              file(place.parts[i - 1]), file(part)),
                  Error::Kind::kData);
    }
    if (part.first_row > next) break;
    next += part.num_rows;
  }
  if (next == rows) return;
  throw Error(fmt::format("tensor '{}' has {} rows, and row {} is in none of '{}' and the files beside it",
                          name, rows, next, file(place.parts[0])),
              Error::Kind::kData);
}

const TensorView& TensorSet::outline(const std::string& name) const {
  if (const auto it = places_.find(name); it != places_.end()) return it->second.outline;
  throw Error(fmt::format("'{}' holds no tensor '{}'; {}", place(), name, describe_near_names(name, names())),
              Error::Kind::kData);
}

StoredTensor TensorSet::at(const std::string& name) const {
  const TensorView& whole = outline(name);
  const auto& parts = places_.at(name).parts;
  if (parts.size() == 1) return {*parts[0].view, nullptr};
  size_t size = 0;
  for (const auto& part : parts) size += part.view->bytes.size();
  auto bytes = std::make_shared<std::vector<std::byte>>(size);
  read_rows(name, 0, whole.shape[0], bytes->data());
  StoredTensor tensor{whole, bytes};
  tensor.bytes = *bytes;
  return tensor;
}

void TensorSet::read_rows(const std::string& name, int64_t first_row, int64_t num_rows, std::byte* to) const {
  const TensorView& whole = outline(name);
  CONCLAVE_CHECK(
      first_row >= 0 && num_rows >= 0 && first_row + num_rows <= (whole.shape.empty() ? 1 : whole.shape[0]),
      fmt::format("'{}': no rows {} to {}", name, first_row, first_row + num_rows));
  for (const auto& part : places_.at(name).parts) {
    const int64_t begin = std::max(first_row, part.first_row),
                  end = std::min(first_row + num_rows, part.first_row + part.num_rows);
    if (begin >= end) continue;
    const auto row_bytes = part.view->bytes.size() / static_cast<size_t>(part.num_rows);
    std::memcpy(to + static_cast<size_t>(begin - first_row) * row_bytes,
                part.view->bytes.data() + static_cast<size_t>(begin - part.first_row) * row_bytes,
                static_cast<size_t>(end - begin) * row_bytes);
  }
}

std::vector<std::string> TensorSet::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::string TensorSet::file_of(const std::string& name) const {
  return files_[places_.at(name).parts[0].file].path().string();
}

std::string TensorSet::place() const {
  if (files_.size() == 1) return files_[0].path().string();
  return fmt::format("{} and {} more", files_[0].path().string(), files_.size() - 1);
}

}  // namespace conclave::train
