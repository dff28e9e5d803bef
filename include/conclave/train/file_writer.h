// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

namespace conclave::train {

// Where the bytes of one new file go. Checkpoints write through this seam, so that a test (or a program with
// its own storage) can put something else below. Every member throws Error that names the file and the
// system's reason.
class FileWriter {
 public:
  virtual ~FileWriter() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;
  // Makes what was written durable and closes the file. A writer destroyed without it leaves an incomplete
  // file.
  virtual void finish() = 0;
};

using FileOpener = std::function<std::unique_ptr<FileWriter>(const std::filesystem::path&)>;

// A file on disk that must not exist yet; small writes are gathered, `finish` does fsync.
std::unique_ptr<FileWriter> create_disk_file(const std::filesystem::path& path);

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace conclave::train
