// SPDX-License-Identifier: Apache-2.0
// Ranks over Gloo that die, freeze, do not come, or do not find each other: an error in time that says who.
#include <csignal>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "ranks.h"

namespace conclave::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Four ranks, of which rank 2 gets `signal` while the others wait for it; what each other one is told. The
// ranks exchange in pairs, so that two of the others have nothing to do with rank 2.
std::vector<std::string> told_by_survivors(int signal) {
  loopback_only();
  const int port = free_port();
  std::fflush(nullptr);
  std::vector<pid_t> ranks;
  std::vector<int> pipes;
  for (int rank = 0; rank < 4; ++rank) {
    int ends[2];
    if (pipe(ends) != 0) throw Error("no pipe");
    const pid_t pid = fork();
    if (pid == 0) {
      std::string text = "nothing";
      try {
        const auto world =
            connect_gloo({.rank = rank, .size = 4, .master_port = port, .timeout = seconds(60)});
        const auto pair = world->split(rank / 2, rank);
        std::vector<double> values(1000, 1.0);
        const Buffer buffer{values.data(), 1000, DataType::kFloat64};
        pair->all_reduce(buffer);
        if (rank == 2) std::raise(signal);
        pair->all_reduce(buffer);
        for (int i = 0; i < 1000; ++i) world->all_reduce(buffer);  // the other pair waits here
      } catch (const std::exception& error) {
        text = error.what();
      }
      if (write(ends[1], text.data(), text.size()) < 0) std::perror("rank");
      _exit(0);
    }
    close(ends[1]);
    ranks.push_back(pid);
    pipes.push_back(ends[0]);
  }
  std::vector<std::string> told;
  for (const int rank : {0, 1, 3}) {
    std::string text;
    char part[512];
    for (ssize_t n; (n = read(pipes[static_cast<size_t>(rank)], part, sizeof part)) > 0;)
      text.append(part, static_cast<size_t>(n));
    told.push_back(text);
  }
  kill(ranks[2], SIGKILL);
  for (const int end : pipes) close(end);
  for (const pid_t pid : ranks) waitpid(pid, nullptr, 0);
  return told;
}

TEST(Faults, all_others_name_the_rank_that_was_killed) {
  const auto start = std::chrono::steady_clock::now();
  for (const auto& text : told_by_survivors(SIGKILL))
    EXPECT_NE(text.find("rank 2 of the run does not answer"), std::string::npos) << text;
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(20)) << "the time of an operation is 60 s";
}

std::string refusal(const Rendezvous& rendezvous) {
  loopback_only();
  try {
    connect_gloo(rendezvous);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kCommunication);
    return error.what();
  }
}

TEST(Faults, ranks_that_do_not_come_are_named) {
  const auto text = refusal({.rank = 0, .size = 3, .master_port = free_port(), .timeout = milliseconds(700)});
  EXPECT_NE(text.find("rank 0 of 3 waited 0.7 s"), std::string::npos) << text;
  EXPECT_NE(text.find("rank 1, 2 did not come"), std::string::npos) << text;
}

TEST(Faults, a_master_that_nobody_keeps_is_an_error_with_its_address) {
  const int port = free_port();
  const auto text = refusal({.rank = 1, .size = 2, .master_port = port, .timeout = milliseconds(700)});
  EXPECT_NE(text.find("rank 1 of 2 did not meet the others at 127.0.0.1:" + std::to_string(port)),
            std::string::npos)
      << text;
}

// A port on which something else listens, and never answers.
TEST(Faults, a_port_of_another_program_is_an_error_in_time) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(socket, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ASSERT_EQ(listen(socket, 8), 0);
  const int port = ntohs(address.sin_port);
  for (const int rank : {0, 1}) {
    const auto text = refusal({.rank = rank, .size = 2, .master_port = port, .timeout = milliseconds(1500)});
    EXPECT_NE(text.find(":" + std::to_string(port)), std::string::npos) << text;
  }
  close(socket);
}

}  // namespace
}  // namespace conclave::comm
