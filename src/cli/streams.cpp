// SPDX-License-Identifier: Apache-2.0
#include "conclave/cli/streams.h"

#include <fcntl.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::cli {

void reserve_standard_streams() {
  for (int descriptor = 0; descriptor <= 2; ++descriptor) {
    if (fcntl(descriptor, F_GETFD) != -1 || errno != EBADF) continue;
    // open gives the lowest free number, which is this one.
    if (open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY) != descriptor) return;
  }
}

void finish_standard_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw Error(fmt::format("the output was not written whole to standard output: {}", std::strerror(errno)));
}

BrokenPipesAreErrors::BrokenPipesAreErrors() : before_(std::signal(SIGPIPE, SIG_IGN)) {}

BrokenPipesAreErrors::~BrokenPipesAreErrors() {
  if (before_ != SIG_ERR) std::signal(SIGPIPE, before_);
}

}  // namespace conclave::cli
