// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

namespace conclave::cuda {

// Loads the library beside the libtorch_cpu that this program runs with: empty, or why that failed. Linked,
// it would cost every command a third of a second and as many gigabytes of addresses.
std::string load_torch_cuda();

}  // namespace conclave::cuda
