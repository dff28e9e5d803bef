// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "conclave/data/reader.h"

namespace conclave::data {

// Where one domain comes from.
struct DomainSource {
  std::string name;
  std::string doc;
  std::string licence;
  std::vector<std::string> packages;
  std::string known_versions;  // "package version, package version": what known_sha256 is of
  std::string known_sha256;    // of the jsonl file
  std::function<std::vector<Document>(const std::filesystem::path& root)>
      extract;  // from the unpacked packages
};

std::vector<DomainSource> domains4_sources();

}  // namespace conclave::data
