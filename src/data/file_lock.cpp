// SPDX-License-Identifier: Apache-2.0
#include "file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::data {

namespace {

[[noreturn]] void fail_on_cache(const char* action, const std::filesystem::path& path,
                                const std::string& reason) {
  throw Error(fmt::format("cannot {} '{}': {}; set CONCLAVE_CACHE to a writable folder on a local disk",
                          action, path.string(), reason));
}

// Whether the open file is still the one that the path names; its last holder may have removed it.
bool is_same_file(int descriptor, const std::filesystem::path& path) {
  struct stat opened {
  }, named{};
  return ::fstat(descriptor, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

}  // namespace

void create_cache_folder(const std::filesystem::path& folder) {
  std::error_code status;
  std::filesystem::create_directories(folder, status);
  if (status) fail_on_cache("create the folder", folder, status.message());
}

FileLock::FileLock(const std::filesystem::path& path, const std::string& what, const Log& log) : path_(path) {
  create_cache_folder(path.parent_path());
  bool told = false;
  while (true) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail_on_cache("create the lock", path, std::strerror(errno));
    while (::flock(descriptor_, told ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
      const int code = errno;
      if (code == EINTR) continue;
      if (code != EWOULDBLOCK) {
        ::close(descriptor_);
        fail_on_cache("take the lock", path, std::strerror(code));
      }
      log.info(fmt::format("waiting for another process that makes {}", what));
      told = true;
    }
    if (is_same_file(descriptor_, path)) return;
    ::close(descriptor_);
  }
}

FileLock::~FileLock() {
  ::unlink(path_.c_str());
  ::close(descriptor_);
}

}  // namespace conclave::data
