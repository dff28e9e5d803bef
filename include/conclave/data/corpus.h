// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "conclave/core/log.h"

namespace conclave::data {

// A corpus that the library knows how to make: a line of the table of corpora.
struct CorpusEntry {
  std::string name;
  std::string doc;
  std::string folder;  // below the cache's `corpora`; ends with the version of its format
  // Writes one DOMAIN.jsonl a domain ({"text", "label", "id"} a line) and manifest.json into an empty folder.
  std::function<void(const std::filesystem::path& folder, const Log& log)> build;
};

std::vector<CorpusEntry> builtin_corpora();

// The folder of a corpus under `corpora`, built when it is not there or not whole (its files are compared
// with its manifest). Two builders at once are safe, and a killed one leaves nothing that looks whole. Throws
// Error that lists the known names, or says why it cannot be built and what to do.
std::filesystem::path open_corpus(const std::string& name, const std::filesystem::path& corpora,
                                  const Log& log, const std::vector<CorpusEntry>& table = builtin_corpora());

// cache_directory() / "corpora"
std::filesystem::path corpora_directory();

}  // namespace conclave::data
