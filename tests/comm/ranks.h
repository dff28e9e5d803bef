// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <mutex>
#include <thread>

#include "conclave/comm/gloo.h"
#include "conclave/comm/threads.h"
#include "conclave/core/error.h"

namespace conclave::comm {

// A port of this machine that nobody listens on.
inline int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(socket, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw Error("no free port");
  }
  close(socket);
  return ntohs(address.sin_port);
}

// run_ranks over real sockets; the ranks are threads here, too. Throws what the first rank threw.
inline void run_gloo_ranks(int size, const std::function<void(Communicator&)>& body,
                           std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  setenv("GLOO_SOCKET_IFNAME", "lo", 1);
  const int port = free_port();
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const auto world =
            connect_gloo({.rank = rank, .size = size, .master_port = port, .timeout = timeout});
        body(*world);
        world->barrier();  // rank 0 keeps the store until all are done
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

using RunRanks = void (*)(int size, const std::function<void(Communicator&)>& body,
                          std::chrono::milliseconds);
struct Transport {
  const char* name;
  RunRanks run;
};
inline constexpr Transport kTransports[] = {{"threads", run_ranks}, {"gloo", run_gloo_ranks}};

}  // namespace conclave::comm
