// SPDX-License-Identifier: Apache-2.0
// libFuzzer's entry; CONCLAVE_LAW is the function of laws.h that this target tries.
#include <cstddef>
#include <cstdint>

#include "laws.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  conclave::fuzz::CONCLAVE_LAW(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
