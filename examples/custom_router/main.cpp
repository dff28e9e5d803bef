// SPDX-License-Identifier: Apache-2.0
// The `conclave` program with one more router.
#include "conclave/cli/run.h"

namespace my_routers {
conclave::moe::RouterEntry my_cosine_entry();
}

int main(int argc, char** argv) {
  auto registry = conclave::moe::builtin();  // a value: nothing else changes
  registry.routers.add(my_routers::my_cosine_entry());
  return conclave::cli::run(argc, argv, registry);
}
