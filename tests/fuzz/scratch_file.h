// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <unistd.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace conclave::fuzz {

// A file for input after input, in memory where there is such a file system: thousands of files on a disk
// cost minutes.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& name) {
    const bool memory = ::access("/dev/shm", W_OK) == 0;
    std::string folder =
        (memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
        "conclave-XXXXXX";
    if (!::mkdtemp(folder.data())) throw std::runtime_error("cannot create " + folder);
    path_ = std::filesystem::path(folder) / name;
  }
  ~ScratchFile() {
    std::error_code ignored;
    std::filesystem::remove_all(path_.parent_path(), ignored);
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  const std::filesystem::path& write(const std::string& content) const {
    std::filesystem::remove(
        path_);  // a file that is truncated and written anew would be synced by some systems
    std::ofstream(path_, std::ios::binary) << content;
    return path_;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace conclave::fuzz
