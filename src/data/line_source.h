// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace conclave::data {

// The bytes of a file, decompressed by its extension: .gz (zlib, several members), .zst (zstd, several
// frames), else plain. Throws Error (kData) that names the file on a read error and on a damaged or truncated
// archive.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Replaces `chunk` by the next bytes; false at the end.
  virtual bool read(std::string& chunk) = 0;
};

std::unique_ptr<ByteSource> open_bytes(const std::filesystem::path& path);

// Lines without their "\n" or "\r\n".
class LineSource {
 public:
  explicit LineSource(std::unique_ptr<ByteSource> bytes) : bytes_(std::move(bytes)) {}
  bool next(std::string& line);
  int64_t number() const { return number_; }  // of the last line, from 1

 private:
  std::unique_ptr<ByteSource> bytes_;
  std::string buffer_;
  size_t at_ = 0;
  bool ended_ = false;
  int64_t number_ = 0;
};

}  // namespace conclave::data
