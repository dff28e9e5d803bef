// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/corpus.h"

#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "conclave/config/problems.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/data/digest.h"
#include "domains4.h"
#include "file_lock.h"

namespace conclave::data {

namespace fs = std::filesystem;

namespace {

// Why the folder does not hold what its manifest says, or "".
std::string damage_of(const fs::path& folder) {
  const fs::path manifest_path = folder / "manifest.json";
  if (!fs::exists(manifest_path)) return "it has no manifest.json";
  const auto manifest = nlohmann::json::parse(read_file(manifest_path), nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || !manifest.contains("domains") || !manifest["domains"].is_array()) {
    return "its manifest.json cannot be read";
  }
  for (const auto& domain : manifest["domains"]) {
    const std::string file = domain.value("file", ""), wanted = domain.value("xxh3", "");
    if (file.empty() || !fs::exists(folder / file)) return fmt::format("the file '{}' is missing", file);
    if (hash128_of_file(folder / file) != wanted)
      return fmt::format("the file '{}' was changed or is damaged", file);
  }
  return "";
}

void remove_builds(const fs::path& corpora, const std::string& prefix) {
  std::error_code ignored;
  for (const auto& item : fs::directory_iterator(corpora)) {
    if (item.path().filename().string().starts_with(prefix)) fs::remove_all(item.path(), ignored);
  }
}

// Removes the folder unless it was renamed into place.
struct BuildFolder {
  explicit BuildFolder(fs::path where) : path(std::move(where)) { create_cache_folder(path); }
  ~BuildFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  BuildFolder(const BuildFolder&) = delete;
  BuildFolder& operator=(const BuildFolder&) = delete;
  fs::path path;
};

}  // namespace

std::vector<CorpusEntry> builtin_corpora() {
  return {domains4_entry()};
}

fs::path corpora_directory() {
  return cache_directory() / "corpora";
}

fs::path open_corpus(const std::string& name, const fs::path& corpora, const Log& log,
                     const std::vector<CorpusEntry>& table) {
  const CorpusEntry* entry = nullptr;
  std::vector<std::string> known;
  for (const auto& candidate : table) {
    known.push_back(candidate.name);
    if (candidate.name == name) entry = &candidate;
  }
  if (!entry) throw Error(config::unknown_name("corpus", name, known));
  const fs::path folder = corpora / entry->folder;
  if (fs::exists(folder) && damage_of(folder).empty()) return folder;
  const FileLock lock(corpora / (entry->folder + ".lock"), fmt::format("the corpus '{}'", name), log);
  if (fs::exists(folder)) {
    const std::string damage = damage_of(folder);
    if (damage.empty()) return folder;  // another builder was first
    log.warn(fmt::format("the corpus in '{}' is not whole: {}; making it again", folder.string(), damage));
  }
  const std::string prefix = entry->folder + ".building.";
  remove_builds(corpora, prefix);  // of killed builders: the lock is ours
  const BuildFolder build(corpora / (prefix + fmt::format("{}", static_cast<long>(::getpid()))));
  log.info(fmt::format("building the corpus '{}' in '{}'", name, folder.string()));
  entry->build(build.path, log);
  if (const std::string damage = damage_of(build.path); !damage.empty()) {
    throw Error(fmt::format("the corpus '{}' was built, but {}; is the disk full?", name, damage));
  }
  fs::remove_all(folder);
  fs::rename(build.path, folder);
  sync_path(corpora);
  return folder;
}

}  // namespace conclave::data
