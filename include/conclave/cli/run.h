// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/registry.h"

namespace conclave::cli {

// Exit codes of the program; docs/cli.md lists them.
enum ExitCode {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,
  kBadData = 3,
  kOutOfMemory = 4,
  kCommunication = 5,
  kDiverged = 6
};

// The `conclave` program with the plug-ins of `registry`: a program that links the library passes its own and
// gets them into the YAML trainer. Returns the exit code; a run stopped by a signal returns 128 + signal.
int run(int argc, char** argv, const moe::Registry& registry);

}  // namespace conclave::cli
