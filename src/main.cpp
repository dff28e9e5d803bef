// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>
#include <csignal>

#include "conclave/cli/run.h"

namespace {

// What only a program may do. A closed pipe becomes an error of the write, which is reported, instead of the
// end of a training run. A standard stream that is closed from the start keeps its number, so that no file of
// the run gets it: what is opened in its place refuses every read or write.
void prepare_streams() {
  std::signal(SIGPIPE, SIG_IGN);
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0) continue;
    if (::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) != stream) ::_exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  prepare_streams();
  return conclave::cli::run(argc, argv, conclave::moe::builtin());
}
