// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <memory>
#include <string>

#include "conclave/comm/communicator.h"

namespace conclave::comm {

// Where the ranks of a run find each other.
struct Rendezvous {
  int rank = 0;
  int size = 1;
  std::string master_address = "127.0.0.1";
  int master_port = 29500;
  // torchrun's agent keeps the store, and every rank is its client; else rank 0 keeps it.
  bool store_is_elsewhere = false;
  // Of a launcher that has bound the port already and gave rank 0 the listening socket; -1: none.
  int listening_socket = -1;
  // Of every key, so that a restarted run reads nothing of the one before it.
  std::string prefix = "conclave";
  std::chrono::milliseconds timeout = std::chrono::minutes(5);  // to meet, and of every operation
};

// The world of processes on CPUs, through LibTorch's Gloo, one rank a process. Turns torch's record of
// operations off (the environment variable TORCH_FR_BUFFER_SIZE, unless it is set): a process has one for all
// groups, and groups that run at once damage it. Throws Error
// (kCommunication) that names the address and the ranks that did not come in time. When an operation fails,
// every rank hears of it within a second, and the Error names those that do not answer any more.
std::unique_ptr<Communicator> connect_gloo(const Rendezvous& rendezvous);

}  // namespace conclave::comm
