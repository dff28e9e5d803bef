// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "conclave/comm/gloo.h"
#include "conclave/comm/threads.h"
#include "conclave/core/error.h"

namespace conclave::comm {

// The store asks for the name of every address that connects; where no name server answers, it waits.
inline void loopback_only() {
  setenv("GLOO_SOCKET_IFNAME", "lo", 1);
  setenv("RES_OPTIONS", "timeout:1 attempts:1", 1);
}

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

// run_ranks over real sockets. The ranks are processes: torch records Gloo's operations in a table of the
// process that several groups at once would damage. Expectations that fail in a rank are told by it and fail
// here; what the first rank threw is thrown here.
inline void run_gloo_ranks(int size, const std::function<void(Communicator&)>& body,
                           std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  loopback_only();
  const int port = free_port();
  int errors[2];
  if (pipe(errors) != 0) throw Error("no pipe");
  std::fflush(nullptr);
  std::vector<pid_t> ranks;
  for (int rank = 0; rank < size; ++rank) {
    const pid_t pid = fork();
    if (pid < 0) throw Error("fork failed");
    if (pid > 0) {
      ranks.push_back(pid);
      continue;
    }
    std::unique_ptr<Communicator> world;  // closed, which the others notice, after the error is told
    try {
      world = connect_gloo({.rank = rank, .size = size, .master_port = port, .timeout = timeout});
      body(*world);
      world->barrier();  // rank 0 keeps the store until all are done
    } catch (const std::exception& error) {
      const std::string line = std::string(error.what()) + "\n";
      if (write(errors[1], line.data(), line.size()) < 0) std::perror("rank");
    }
    std::fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  close(errors[1]);
  std::string told;
  char part[512];
  for (ssize_t n; (n = read(errors[0], part, sizeof part)) > 0;) told.append(part, static_cast<size_t>(n));
  close(errors[0]);
  for (const pid_t pid : ranks) {
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "a rank failed, status " << status;
  }
  if (!told.empty()) throw Error(told.substr(0, told.find('\n')));
}

// The same where ranks may die: what each of them threw, "" for one that ended well or was killed.
inline std::vector<std::string> told_by_gloo_ranks(
    int size, const std::function<void(Communicator&)>& body,
    std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  loopback_only();
  const int port = free_port();
  std::fflush(nullptr);
  std::vector<pid_t> ranks;
  std::vector<int> pipes;
  for (int rank = 0; rank < size; ++rank) {
    int ends[2];
    if (pipe(ends) != 0) throw Error("no pipe");
    const pid_t pid = fork();
    if (pid == 0) {
      std::unique_ptr<Communicator> world;
      std::string text;
      try {
        world = connect_gloo({.rank = rank, .size = size, .master_port = port, .timeout = timeout});
        body(*world);
        world->barrier();
      } catch (const std::exception& error) {
        text = error.what();
      }
      if (write(ends[1], text.data(), text.size()) < 0) std::perror("rank");
      std::fflush(nullptr);
      _exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    close(ends[1]);
    ranks.push_back(pid);
    pipes.push_back(ends[0]);
  }
  std::vector<std::string> told(static_cast<size_t>(size));
  for (size_t rank = 0; rank < told.size(); ++rank) {
    char part[512];
    for (ssize_t n; (n = read(pipes[rank], part, sizeof part)) > 0;)
      told[rank].append(part, static_cast<size_t>(n));
    close(pipes[rank]);
    int status = 0;
    waitpid(ranks[rank], &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << "an expectation failed in rank " << rank;
  }
  return told;
}

// `ranks` as a communicator that is not owned.
inline std::shared_ptr<Communicator> borrowed(Communicator& ranks) {
  return {std::shared_ptr<void>(), &ranks};
}

using RunRanks = void (*)(int size, const std::function<void(Communicator&)>& body,
                          std::chrono::milliseconds);
struct Transport {
  const char* name;
  RunRanks run;
};
inline constexpr Transport kTransports[] = {{"threads", run_ranks}, {"gloo", run_gloo_ranks}};

}  // namespace conclave::comm
