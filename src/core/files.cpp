// SPDX-License-Identifier: Apache-2.0
#include "conclave/core/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave {

namespace {

[[noreturn]] void fail_on_file(const char* action, const std::filesystem::path& path) {
  const std::string reason = std::strerror(errno);
  throw Error(fmt::format("cannot {} '{}': {}", action, path.string(), reason), Error::Kind::kData);
}

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags, mode_t mode = 0)
      : value_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  bool ok() const { return value_ >= 0; }

 private:
  int value_;
};

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    errno = EISDIR;
    fail_on_file("read", path);
  }
  const Descriptor file(path, O_RDONLY);
  if (!file.ok()) fail_on_file("open", path);
  std::string content;
  char buffer[1 << 16];
  while (true) {
    const ssize_t count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on_file("read", path);
    if (count == 0) return content;
    content.append(buffer, static_cast<size_t>(count));
  }
}

void sync_path(const std::filesystem::path& path) {
  const Descriptor file(path, O_RDONLY);
  if (!file.ok()) fail_on_file("open", path);
  if (::fsync(file.get()) != 0 && errno != EINVAL) fail_on_file("sync", path);
}

namespace {

void write_whole(const std::filesystem::path& path, std::string_view content) {
  const Descriptor file(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (!file.ok()) fail_on_file("create", path);
  while (!content.empty()) {
    const ssize_t count = ::write(file.get(), content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on_file("write", path);
    content.remove_prefix(static_cast<size_t>(count));
  }
  if (::fsync(file.get()) != 0) fail_on_file("sync", path);
}

}  // namespace

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  const std::filesystem::path temporary =
      path.string() + fmt::format(".{}.tmp", static_cast<long>(::getpid()));
  try {
    write_whole(temporary, content);
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail_on_file("rename into place", path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const auto folder = path.parent_path();
  sync_path(folder.empty() ? std::filesystem::path(".") : folder);
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file(path, O_RDONLY);
  if (!file.ok()) fail_on_file("open", path);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) fail_on_file("inspect", path);
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return;
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) fail_on_file("map", path);
  owner_ =
      std::shared_ptr<const void>(address, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
  bytes_ = {static_cast<const std::byte*>(address), size};
}

std::filesystem::path cache_directory() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  if (const auto own = variable("CONCLAVE_CACHE"); !own.empty()) return own;
  if (const auto xdg = variable("XDG_CACHE_HOME"); !xdg.empty())
    return std::filesystem::path(xdg) / "conclave";
  if (const auto home = variable("HOME"); !home.empty())
    return std::filesystem::path(home) / ".cache" / "conclave";
  throw Error(
      "no cache folder: neither CONCLAVE_CACHE nor HOME is set; set CONCLAVE_CACHE to a writable folder");
}

}  // namespace conclave
