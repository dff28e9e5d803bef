// SPDX-License-Identifier: Apache-2.0
#include "output_file.h"

#include <unistd.h>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"

namespace conclave::data {

OutputFile::OutputFile(std::filesystem::path path)
    : path_(std::move(path)),
      temporary_(path_.string() + fmt::format(".{}.tmp", static_cast<long>(::getpid()))) {
  file_ = std::fopen(temporary_.c_str(), "wbe");
  if (!file_) fail("create");
}

OutputFile::~OutputFile() {
  if (!file_) return;
  std::fclose(file_);
  ::unlink(temporary_.c_str());
}

void OutputFile::write(const void* data, size_t size) {
  if (size > 0 && std::fwrite(data, 1, size, file_) != size) fail("write");
}

void OutputFile::overwrite(int64_t offset, const void* data, size_t size) {
  if (std::fseek(file_, static_cast<long>(offset), SEEK_SET) != 0) fail("write");
  write(data, size);
}

void OutputFile::commit() {
  if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0) fail("write");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename into place");
  std::fclose(file_);
  file_ = nullptr;
  const auto folder = path_.parent_path();
  sync_path(folder.empty() ? std::filesystem::path(".") : folder);
}

void OutputFile::fail(const char* action) const {
  const std::string reason = std::strerror(errno);
  throw Error(fmt::format("cannot {} '{}': {}", action, path_.string(), reason));
}

}  // namespace conclave::data
