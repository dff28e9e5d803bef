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

// The ranks exchange in pairs, so that two of the others have nothing to do with the one that dies.
TEST(Faults, all_others_name_the_rank_that_was_killed) {
  const auto start = std::chrono::steady_clock::now();
  const auto told = told_by_gloo_ranks(4, [](Communicator& world) {
    const auto pair = world.split(world.rank() / 2, world.rank());
    std::vector<double> values(1000, 1.0);
    const Buffer buffer{values.data(), 1000, DataType::kFloat64};
    pair->all_reduce(buffer);
    if (world.rank() == 2) std::raise(SIGKILL);
    pair->all_reduce(buffer);
    for (int i = 0; i < 1000; ++i) world.all_reduce(buffer);  // the other pair waits here
  });
  for (const int rank : {0, 1, 3}) {
    const auto& text = told[static_cast<size_t>(rank)];
    EXPECT_NE(text.find("rank 2 of the run does not answer"), std::string::npos) << text;
  }
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
