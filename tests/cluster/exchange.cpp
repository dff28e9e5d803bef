// SPDX-License-Identifier: Apache-2.0
// One rank of an emulated cluster (cluster_test.py): exchanges known amounts, and compares what count_traffic
// counted for the links to other nodes with what the node's network interface says. Ends with 1 when they
// differ by more than a percent.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "conclave/comm/counting.h"
#include "conclave/comm/launch.h"
#include "conclave/core/error.h"

namespace {

using namespace conclave;

constexpr int64_t kUnit = 3 << 20;  // fp32 values
constexpr int kRounds = 2;

int64_t sent_by_interface() {
  int64_t bytes = -1;
  std::ifstream(fmt::format("/sys/class/net/{}/statistics/tx_bytes", std::getenv("GLOO_SOCKET_IFNAME"))) >>
      bytes;
  return bytes;
}

// Uneven, and nothing for some.
int64_t values_between(int from, int to) {
  return from == to ? 0 : kUnit * ((from + 2 * to) % 4);
}

int run() {
  const auto launch = comm::read_launch(std::getenv);
  const int per_node = std::atoi(std::getenv("LOCAL_WORLD_SIZE"));
  const std::shared_ptr<comm::Communicator> world = comm::connect_gloo(launch->rendezvous);
  std::vector<int> nodes(static_cast<size_t>(world->size()));
  for (int r = 0; r < world->size(); ++r) nodes[static_cast<size_t>(r)] = r / per_node;
  const auto traffic = std::make_shared<comm::Traffic>();
  const auto counted = comm::count_traffic(world, nodes, traffic);

  std::vector<int64_t> send, receive;
  for (int r = 0; r < world->size(); ++r) {
    send.push_back(values_between(world->rank(), r));
    receive.push_back(values_between(r, world->rank()));
  }
  const auto sum = [](const std::vector<int64_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
  };
  std::vector<float> in(static_cast<size_t>(sum(send)), 1.0f), out(static_cast<size_t>(sum(receive)));
  world->barrier();
  const int64_t before = sent_by_interface();
  world->barrier();
  for (int i = 0; i < kRounds; ++i) {
    counted->all_to_all({in.data(), sum(send), comm::DataType::kFloat32}, send,
                        {out.data(), sum(receive), comm::DataType::kFloat32}, receive);
  }
  world->barrier();
  const int64_t after = sent_by_interface();
  world->barrier();

  int64_t expected = 0;  // of this rank to other nodes
  for (int r = 0; r < world->size(); ++r) {
    if (r / per_node != world->rank() / per_node) expected += kRounds * 4 * send[static_cast<size_t>(r)];
  }
  const auto node = world->split(world->rank() / per_node, world->rank());
  int64_t sums[2] = {traffic->other_nodes.payload_bytes, expected};
  node->all_reduce({sums, 2, comm::DataType::kInt64});
  int32_t wrong = 0;
  if (node->rank() == 0) {
    const double excess = 100.0 * (static_cast<double>(after - before) / static_cast<double>(sums[0]) - 1.0);
    wrong = sums[0] != sums[1] || sums[0] < (32 << 20) || std::abs(excess) > 1.0;
    fmt::print("node {} of {}: formula {}, counted {}, interface {} bytes ({:+.2f} %){}\n",
               world->rank() / per_node, world->size() / per_node, sums[1], sums[0], after - before, excess,
               wrong ? "  WRONG" : "");
  }
  world->all_reduce({&wrong, 1, comm::DataType::kInt32});
  return wrong != 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
