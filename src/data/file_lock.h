// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>

#include "conclave/core/log.h"

namespace conclave::data {

// An exclusive lock between processes and threads, by a file that exists while it is held. Waits for the
// holder, and says so in the log. The system frees it when the process dies. Creates the file's folder.
class FileLock {
 public:
  FileLock(const std::filesystem::path& path, const std::string& what, const Log& log);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// Throws Error that says to point CONCLAVE_CACHE at a writable folder when the folder cannot be made.
void create_cache_folder(const std::filesystem::path& folder);

}  // namespace conclave::data
