// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/agreement.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/comm/groups.h"
#include "ranks.h"

namespace conclave::comm {
namespace {

class Agreement : public ::testing::TestWithParam<Transport> {
 protected:
  void run(int size, const std::function<void(Communicator&)>& body) const {
    GetParam().run(size, body, std::chrono::seconds(60));
  }
};

TEST_P(Agreement, texts_of_any_length_reach_every_rank) {
  run(3, [](Communicator& c) {
    const std::string mine(static_cast<size_t>(c.rank() * 5), static_cast<char>('a' + c.rank()));
    EXPECT_EQ(broadcast_text(c, mine, 2), "cccccccccc");
    EXPECT_EQ(broadcast_text(c, mine, 0), "");
    EXPECT_EQ(all_gather_texts(c, mine), (std::vector<std::string>{"", "bbbbb", "cccccccccc"}));
  });
}

TEST_P(Agreement, a_part_that_fails_on_some_ranks_fails_on_all) {
  run(4, [](Communicator& c) {
    int done = 0;
    do_together(c, [&] { ++done; });
    EXPECT_EQ(done, 1);
    std::string text;
    auto kind = Error::Kind::kFailed;
    try {
      do_together(c, [&] {
        if (c.rank() % 2) throw Error(fmt::format("the disk of {} is full", c.rank()), Error::Kind::kData);
      });
    } catch (const Error& error) {
      text = error.what();
      kind = error.kind();
    }
    if (c.rank() % 2) {
      EXPECT_EQ(text, fmt::format("the disk of {} is full", c.rank()));
      EXPECT_EQ(kind, Error::Kind::kData);
    } else {
      EXPECT_EQ(text, "rank 1 of 4 failed: the disk of 1 is full");
      EXPECT_EQ(kind, Error::Kind::kCommunication);
    }
  });
}

TEST_P(Agreement, groups_follow_the_mesh) {
  run(4, [](Communicator& c) {
    const auto groups = make_groups(borrowed(c), {.expert = 2});
    EXPECT_EQ(groups.world->size(), 4);
    EXPECT_EQ(groups.data->size(), 4);
    EXPECT_EQ(groups.expert->size(), 2);
    EXPECT_EQ(groups.expert->rank(), c.rank() % 2);
    EXPECT_EQ(groups.expert_data->rank(), c.rank() / 2);
    int64_t ranks = int64_t{1} << (8 * c.rank());
    groups.expert->all_reduce({&ranks, 1, DataType::kInt64});
    EXPECT_EQ(ranks, c.rank() < 2 ? 0x0101 : 0x01010000);
    ranks = int64_t{1} << (8 * c.rank());
    groups.expert_data->all_reduce({&ranks, 1, DataType::kInt64});
    EXPECT_EQ(ranks, c.rank() % 2 ? 0x01000100 : 0x00010001);
  });
}

INSTANTIATE_TEST_SUITE_P(transports, Agreement, ::testing::ValuesIn(kTransports),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace conclave::comm
