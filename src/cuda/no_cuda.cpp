// SPDX-License-Identifier: Apache-2.0
// A build without CUDA.
#include "conclave/core/error.h"
#include "conclave/cuda/install.h"
#include "conclave/ops/kernel_table.h"

namespace conclave::cuda {

namespace {

constexpr const char* kWhy = "this program was built without CUDA";

}  // namespace

void offer() {
  ops::offer_device(c10::DeviceType::CUDA, [] { return std::string(kWhy); });
}

std::shared_ptr<comm::Communicator> with_gpus(std::shared_ptr<comm::Communicator>, const RankOptions&) {
  throw Error(kWhy);
}

std::shared_ptr<comm::Communicator> single_with_gpu() {
  throw Error(kWhy);
}

}  // namespace conclave::cuda
