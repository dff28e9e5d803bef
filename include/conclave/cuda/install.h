// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "conclave/comm/communicator.h"

// GPUs for a program. A build without CUDA has the same functions, which say so.
namespace conclave::cuda {

// Offers this machine's GPUs to `ops`: when somebody first asks for one, libtorch_cuda is loaded and the
// kernels are installed. Programs that never do pay nothing for it. That somebody asks (ops::absence_of)
// before the first backward pass.
void offer();

// Offers and loads them at once: empty, or why there are none. For programs that move tensors to a GPU
// themselves; before the first tensor of any kind, since LibTorch looks once whether it knows GPUs.
std::string load();

struct RankOptions {
  // Buffers on the GPUs go through NCCL; false: through the memory of the host and what connects it, for
  // which ranks may share a GPU.
  bool nccl = true;
  std::chrono::milliseconds timeout = std::chrono::minutes(5);
  // Called once, from any thread, when NCCL's operations have come to an end for this rank: why, and what
  // they were, a line each.
  std::function<void(const std::string& cause, const std::string& record)> on_failure = {};
};

// `host`, ranks whose current device is a GPU, with buffers on the host and on the GPUs. Throws Error.
std::shared_ptr<comm::Communicator> with_gpus(std::shared_ptr<comm::Communicator> host,
                                              const RankOptions& options);

// The only rank of a run or group, for buffers on the host and on the current GPU.
std::shared_ptr<comm::Communicator> single_with_gpu();

}  // namespace conclave::cuda
