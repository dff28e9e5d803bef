// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace conclave {

// The whole file. Throws Error (kData) that names the path and the system's reason.
std::string read_file(const std::filesystem::path& path);

// Writes `content` so that `path` holds either its old content or all of the new one, also after a crash:
// temporary file in the same folder, fsync, rename, fsync of the folder. Throws Error that names the path and
// the reason (full disk, read-only folder); the temporary file is removed.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

// fsync of a file or folder by name.
void sync_path(const std::filesystem::path& path);

// A file mapped for reading, shared between copies; unmapped with the last one. An empty file maps to an
// empty span.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
};

// $CONCLAVE_CACHE, else $XDG_CACHE_HOME/conclave, else ~/.cache/conclave. Shared by all clones; not created
// here.
std::filesystem::path cache_directory();

}  // namespace conclave
