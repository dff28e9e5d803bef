// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "conclave/comm/nccl_api.h"

namespace conclave::comm {

struct NcclOptions {
  std::chrono::milliseconds timeout = std::chrono::minutes(5);  // to connect, and of every operation
  std::chrono::milliseconds poll = std::chrono::milliseconds(50);
  // Called once, from any thread, when the run is over for this rank: why, and what its communicators did
  // last, a line each.
  std::function<void(const std::string& cause, const std::string& record)> on_failure = {};
  // Why another rank has ended the run, if one has. connect_nccl() asks `host`.
  std::function<std::optional<std::string>()> stopped_elsewhere = {};
};

// Ranks whose buffers lie on GPUs, all of them, through NCCL. An operation is put behind what the caller's
// stream holds, and Work::wait() puts that stream behind the operation: the host waits for neither, except in
// barrier() and where NCCL needs time to connect. `host`: the same ranks on the host, which brings the id,
// tells who shares a split, and tells the others when this rank gives up: NCCL itself tells them nothing.
//
// A thread watches every operation. When NCCL reports an error, or an operation does not end in time, all
// communicators of this rank are aborted, and everything that is called then throws Error (kCommunication)
// with the cause. Sums are taken in NCCL's order: the same bits on all ranks and in every run of a layout,
// not those of another transport. Throws Error where library and header are of different versions, and where
// the ranks do not connect in time.
std::unique_ptr<Communicator> connect_nccl(std::shared_ptr<NcclApi> nccl, std::shared_ptr<DeviceApi> device,
                                           std::shared_ptr<Communicator> host, NcclOptions options);

}  // namespace conclave::comm
