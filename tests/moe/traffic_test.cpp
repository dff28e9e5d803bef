// SPDX-License-Identifier: Apache-2.0
// What an MoE layer sends, forward and backward, against the formulas. all_to_all: a row of D values to each
// (token, choice) whose expert is on another rank and back, in both passes; one weight with each row, and its
// gradient back. all_gather: each rank's tokens to every other rank and their sums back, in both passes, as
// many as the rank with most of them has; likewise the weights and, once, the token of each row. Both: the
// counts of all experts and the tokens to every other rank, once. The program prints the table.
#include <mutex>

#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "conclave/comm/counting.h"
#include "conclave/moe/make.h"
#include "conclave/moe/routers/topk.h"

namespace {

using namespace conclave;

struct Cluster {
  int nodes, ranks_per_node;
  int64_t tokens, width, experts, top_k;
  c10::ScalarType dtype;
  bool gathered = false;
};

// Sums over ranks, by link.
struct Volume {
  comm::LinkVolume same_node = {}, other_nodes = {};
};
void add(comm::LinkVolume& sum, const comm::LinkVolume& part) {
  sum.messages += part.messages;
  sum.payload_bytes += part.payload_bytes;
  sum.metadata_bytes += part.metadata_bytes;
}

class LayerTraffic : public ::testing::TestWithParam<Cluster> {};

TEST_P(LayerTraffic, is_what_the_formulas_say) {
  const auto& c = GetParam();
  const int size = c.nodes * c.ranks_per_node;
  const int64_t element = c10::elementSize(c.dtype), weight = 4, row = c.width * element;
  Volume sent, expected;
  std::mutex mutex;
  comm::run_ranks(size, [&](comm::Communicator& world) {
    std::vector<int> nodes;
    for (int r = 0; r < size; ++r) nodes.push_back(r / c.ranks_per_node);
    const auto traffic = std::make_shared<comm::Traffic>();
    const std::shared_ptr<comm::Communicator> ranks =
        comm::count_traffic(comm::borrowed(world), nodes, traffic);
    auto layer = moe::make_moe_layer(
        {.width = c.width,
         .num_experts = c.experts,
         .expert_width = 5,
         .expert_parallel = ranks,
         .gather_tokens = c.gathered},
        [&](const auto& shape) { return moe::make_topk_router({.top_k = c.top_k}, shape); }, 3, 0.5);
    // Ranks have unequal numbers of tokens, the last one none.
    const int64_t tokens = world.rank() == size - 1 ? 0 : c.tokens + 3 * world.rank();
    const auto x = at::randn({tokens, c.width}).to(c.dtype).requires_grad_(true);
    auto context = moe::ForwardContext::plain(tokens);
    layer->run(x, context).sum().backward();

    Volume mine;
    const auto& plan = std::get<moe::SparsePlan>(context.traces.at(0).plan.body);
    const int64_t here = c.experts / size;
    const auto* offsets = plan.expert_offsets_E1.const_data_ptr<int32_t>();
    int64_t most[2] = {tokens, offsets[c.experts]};
    world.all_reduce({most, 2, comm::DataType::kInt64}, comm::Reduction::kMax);
    const int64_t sum = c.width * std::max<int64_t>(element, 4);  // of a token, added up in fp32
    for (int r = 0; r < size; ++r) {
      if (r == world.rank()) continue;
      auto& link = nodes[static_cast<size_t>(r)] == nodes[static_cast<size_t>(world.rank())]
                       ? mine.same_node
                       : mine.other_nodes;
      const int64_t pairs = offsets[(r + 1) * here] - offsets[r * here];
      link.messages += 1;  // the counts
      link.metadata_bytes += (c.experts + 1) * 4;
      if (c.gathered) {
        link.messages += 7;
        link.payload_bytes += 2 * most[0] * (row + sum);
        link.metadata_bytes += most[1] * (4 + 2 * weight);
        continue;
      }
      // Out with the rows and with their gradients; the way back is the other rank's, the mirror image.
      // Summed over ranks each pair is sent out twice and back twice, its weight once each way.
      link.messages += pairs > 0 ? 6 : 0;
      link.payload_bytes += 4 * pairs * row;
      link.metadata_bytes += 2 * pairs * weight;
    }
    const std::lock_guard lock(mutex);
    EXPECT_EQ(traffic->calls, c.gathered ? 8 : 7) << "counts, rows, weights, rows back, and three in the "
                                                     "backward pass; gathered: the token of each row";
    add(sent.same_node, traffic->same_node);
    add(sent.other_nodes, traffic->other_nodes);
    add(expected.same_node, mine.same_node);
    add(expected.other_nodes, mine.other_nodes);
  });
  for (const auto& [name, is, should] : {std::tuple("same node", sent.same_node, expected.same_node),
                                         std::tuple("other nodes", sent.other_nodes, expected.other_nodes)}) {
    EXPECT_EQ(is.messages, should.messages) << name;
    EXPECT_EQ(is.payload_bytes, should.payload_bytes) << name;
    EXPECT_EQ(is.metadata_bytes, should.metadata_bytes) << name;
    fmt::print(
        "{:10} | {} x {} ranks, {} tokens, D {}, E {}, k {}, {:8} | {:11} | messages {:4} | payload {:8} | "
        "metadata "
        "{:6}\n",
        c.gathered ? "all_gather" : "all_to_all", c.nodes, c.ranks_per_node, c.tokens, c.width, c.experts,
        c.top_k, c10::toString(c.dtype), name, is.messages, is.payload_bytes, is.metadata_bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(
    clusters, LayerTraffic,
    ::testing::Values(Cluster{1, 2, 40, 12, 6, 2, at::kFloat}, Cluster{2, 1, 40, 12, 6, 2, at::kFloat},
                      Cluster{2, 2, 40, 12, 12, 3, at::kBFloat16}, Cluster{2, 3, 40, 20, 12, 1, at::kFloat},
                      Cluster{4, 2, 100, 256, 16, 2, at::kBFloat16},
                      Cluster{1, 2, 40, 12, 6, 4, at::kFloat, true}, Cluster{1, 2, 40, 12, 6, 4, at::kFloat},
                      Cluster{2, 2, 100, 256, 16, 8, at::kBFloat16, true},
                      Cluster{2, 2, 100, 256, 16, 8, at::kBFloat16}),
    [](const auto& info) {
      return fmt::format("nodes_{}_ranks_{}_top_{}{}", info.param.nodes, info.param.ranks_per_node,
                         info.param.top_k, info.param.gathered ? "_gathered" : "");
    });

TEST(CountedTraffic, groups_count_into_the_traffic_of_their_whole_and_latency_is_waited_for) {
  comm::run_ranks(4, [](comm::Communicator& world) {
    const auto traffic = std::make_shared<comm::Traffic>();
    const auto ranks = comm::count_traffic(comm::borrowed(world), {0, 0, 1, 1}, traffic,
                                           {.other_nodes = std::chrono::milliseconds(30)});
    // Ranks 0 and 2, and 1 and 3: every link leads to another node.
    const auto group = ranks->split(world.rank() % 2, world.rank());
    const int64_t value = world.rank();
    std::vector<int64_t> all(2);
    const auto begin = std::chrono::steady_clock::now();
    group->all_gather({&value, 1, comm::DataType::kInt64}, {all.data(), 2, comm::DataType::kInt64},
                      comm::Content::kMetadata);
    EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(30));
    EXPECT_EQ(all, (std::vector<int64_t>{world.rank() % 2, world.rank() % 2 + 2}));
    EXPECT_EQ(traffic->other_nodes.messages, 1);
    EXPECT_EQ(traffic->other_nodes.metadata_bytes, 8);
    EXPECT_EQ(traffic->same_node.messages, 0);
    EXPECT_EQ(traffic->calls, 1);
  });
}

}  // namespace
