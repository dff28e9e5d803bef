// SPDX-License-Identifier: Apache-2.0
#include <fnmatch.h>
#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/data/reader.h"

namespace conclave::data {

namespace fs = std::filesystem;

namespace {

bool has_known_extension(const fs::path& path, const std::vector<ReaderEntry>& table) {
  const std::string name = path.filename().string();
  for (const auto& entry : table) {
    for (const auto& extension : entry.extensions) {
      if (name.size() > extension.size() && name.ends_with(extension)) return true;
    }
  }
  return false;
}

void sort_by_name(std::vector<SourceFile>& files) {
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
}

std::vector<SourceFile> files_of_folder(const fs::path& folder) {
  const auto table = builtin_readers();
  std::vector<SourceFile> files;
  for (const auto& item : fs::recursive_directory_iterator(folder)) {
    if (item.is_symlink() || !item.is_regular_file() || !has_known_extension(item.path(), table)) continue;
    files.push_back({.path = item.path(), .name = item.path().lexically_relative(folder).generic_string()});
  }
  sort_by_name(files);
  if (files.empty()) {
    std::string known;
    for (const auto& entry : table) {
      for (const auto& extension : entry.extensions) known += (known.empty() ? "" : " ") + extension;
    }
    throw Error(
        fmt::format(
            "the folder '{}' holds no file of a known format (known extensions: {}; symbolic links are "
            "not followed)",
            folder.string(), known),
        Error::Kind::kData);
  }
  return files;
}

bool is_glob(const std::string& text) {
  return text.find_first_of("*?[") != std::string::npos;
}

// Replaces the pattern's components one by one by what matches below each of `bases`.
std::vector<fs::path> expand_glob(const fs::path& pattern) {
  std::vector<fs::path> bases = {pattern.has_root_path() ? pattern.root_path() : fs::path()};
  for (const auto& component : pattern.relative_path()) {
    std::vector<fs::path> next;
    for (const auto& base : bases) {
      if (!is_glob(component.string())) {
        if (fs::exists(base / component)) next.push_back(base / component);
        continue;
      }
      const fs::path folder = base.empty() ? fs::path(".") : base;
      if (!fs::is_directory(folder)) continue;
      for (const auto& item : fs::directory_iterator(folder)) {
        const fs::path name = item.path().filename();
        if (::fnmatch(component.c_str(), name.c_str(), FNM_PERIOD) == 0) next.push_back(base / name);
      }
    }
    bases = std::move(next);
  }
  return bases;
}

std::vector<SourceFile> files_of_glob(const std::string& pattern) {
  // Names are relative to the folder before the first wildcard.
  fs::path fixed;
  for (const auto& component : fs::path(pattern)) {
    if (is_glob(component.string())) break;
    fixed /= component;
  }
  std::vector<SourceFile> files;
  for (const auto& path : expand_glob(pattern)) {
    if (!fs::is_regular_file(path)) continue;
    const fs::path name = fixed.empty() ? path : path.lexically_relative(fixed);
    files.push_back({.path = path, .name = name.generic_string()});
  }
  sort_by_name(files);
  if (files.empty()) {
    throw Error(fmt::format("no file matches '{}'; check the pattern and the folder '{}'", pattern,
                            fixed.empty() ? fs::current_path().string() : fixed.string()),
                Error::Kind::kData);
  }
  return files;
}

}  // namespace

std::vector<SourceFile> find_files(const std::string& path) {
  std::error_code status;
  if (fs::is_directory(path, status)) return files_of_folder(path);
  if (fs::exists(path, status)) return {{.path = path, .name = fs::path(path).filename().string()}};
  if (is_glob(path)) return files_of_glob(path);
  throw Error(fmt::format("no file or folder '{}' (seen from '{}')", path, fs::current_path().string()),
              Error::Kind::kData);
}

}  // namespace conclave::data
