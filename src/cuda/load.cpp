// SPDX-License-Identifier: Apache-2.0
#include "conclave/cuda/install.h"
#include "conclave/ops/kernel_table.h"

namespace conclave::cuda {

std::string load() {
  offer();
  return ops::absence_of(c10::DeviceType::CUDA);
}

}  // namespace conclave::cuda
