// SPDX-License-Identifier: Apache-2.0
#include "conclave/cli/run.h"

int main(int argc, char** argv) {
  return conclave::cli::run(argc, argv, conclave::moe::builtin());
}
