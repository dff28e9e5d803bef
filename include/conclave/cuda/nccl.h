// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "conclave/comm/devices.h"
#include "conclave/comm/nccl_api.h"

struct CUstream_st;

namespace conclave::cuda {

// The NCCL that this program is linked with.
std::shared_ptr<comm::NcclApi> make_nccl();

// The current CUDA device. `current_stream`: the stream that the caller computes in, asked for at every
// operation.
std::shared_ptr<comm::DeviceApi> make_device(CUstream_st* (*current_stream)());

// Copies in that stream. Those from and to the host wait for it: host memory is pageable and used again at
// once.
std::shared_ptr<comm::DeviceMemory> make_device_memory(CUstream_st* (*current_stream)());

}  // namespace conclave::cuda
