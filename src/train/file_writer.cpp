// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/file_writer.h"

#include <fcntl.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::train {

namespace {

constexpr size_t kDiskBufferBytes = size_t{1} << 20;

class DiskFile : public FileWriter {
 public:
  explicit DiskFile(const std::filesystem::path& path)
      : path_(path), descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
    if (descriptor_ < 0) fail("create");
  }
  ~DiskFile() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  DiskFile(const DiskFile&) = delete;
  DiskFile& operator=(const DiskFile&) = delete;

  void write(std::span<const std::byte> bytes) override {
    if (buffer_.size() + bytes.size() <= kDiskBufferBytes) {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
      return;
    }
    flush();
    write_through(bytes);
  }

  void finish() override {
    flush();
    if (::fsync(descriptor_) != 0) fail("sync");
    const int descriptor = std::exchange(descriptor_, -1);
    if (::close(descriptor) != 0) fail("close");  // network file systems report a full disk only now
  }

 private:
  void flush() {
    write_through(buffer_);
    buffer_.clear();
  }
  void write_through(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("write");
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
  }
  [[noreturn]] void fail(const char* action) const {
    const std::string reason = std::strerror(errno);
    throw Error(fmt::format("cannot {} '{}': {}", action, path_.string(), reason));
  }

  std::filesystem::path path_;
  int descriptor_;
  std::vector<std::byte> buffer_;
};

}  // namespace

std::unique_ptr<FileWriter> create_disk_file(const std::filesystem::path& path) {
  return std::make_unique<DiskFile>(path);
}

}  // namespace conclave::train
