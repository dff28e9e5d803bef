// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::train {

namespace {

// The process number that the holder wrote, for the message.
std::string lock_holder(int descriptor) {
  char text[32] = {};
  const ssize_t count = ::pread(descriptor, text, sizeof text - 1, 0);
  std::string digits;
  for (ssize_t i = 0; i < count && text[i] >= '0' && text[i] <= '9'; ++i) digits += text[i];
  return digits.empty() ? "another process" : fmt::format("process {}", digits);
}

// Whether `path` still is the file behind the descriptor: the folder may have been moved aside while we
// waited.
bool same_file(int descriptor, const std::filesystem::path& path) {
  struct stat held {
  }, named{};
  return ::fstat(descriptor, &held) == 0 && ::stat(path.c_str(), &named) == 0 &&
         held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& folder) {
  const auto path = folder / "lock";
  const auto failure = [&](int error) {
    return Error(fmt::format("cannot lock '{}': {}; choose a run.output_dir that can be written",
                             path.string(), std::strerror(error)));
  };
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) throw failure(errno);
  const bool locked = ::flock(descriptor, LOCK_EX | LOCK_NB) == 0;
  const int error = errno;
  if (locked && same_file(descriptor, path)) {
    // The number only serves the message below; the lock itself does not depend on it.
    const std::string text = fmt::format("{}\n", static_cast<long>(::getpid()));
    if (::ftruncate(descriptor, 0) == 0) (void)!::pwrite(descriptor, text.data(), text.size(), 0);
    descriptor_ = descriptor;
    return;
  }
  const std::string holder = lock_holder(descriptor);
  ::close(descriptor);
  if (!locked && error != EWOULDBLOCK) throw failure(error);
  throw Error(fmt::format("{} trains in '{}' already; wait for it or choose another run.output_dir", holder,
                          folder.string()));
}

RunLock::~RunLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

RunLock::RunLock(RunLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

RunLock& RunLock::operator=(RunLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

}  // namespace conclave::train
