// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "conclave/core/log.h"

namespace conclave::data {

struct DebianPackage {
  std::string name = {};
  std::string version = {};
  std::string sha256 = {};  // of the .deb
};

// Unpacks the newest versions of the packages into `folder`/root, without root rights and without installing
// anything. A .deb that lies in `offline` is taken from there, the others come from the package archive.
// Throws Error that says why that failed and what to do.
std::vector<DebianPackage> unpack_packages(const std::vector<std::string>& names,
                                           const std::filesystem::path& folder,
                                           const std::filesystem::path& offline, const Log& log);

}  // namespace conclave::data
