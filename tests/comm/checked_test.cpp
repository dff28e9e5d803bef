// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/checked.h"

#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ranks.h"

namespace conclave::comm {
namespace {

class CheckedCalls : public ::testing::TestWithParam<Transport> {
 protected:
  // What every one of three ranks gets to hear; `body` is given the checked communicator.
  template <class Body>
  void expect_refused(const std::string& part, Body body) const {
    GetParam().run(
        3,
        [&](Communicator& world) {
          const auto checked = check_calls(borrowed(world));
          std::string text;
          try {
            body(*checked);
          } catch (const Error& error) {
            EXPECT_EQ(error.kind(), Error::Kind::kCommunication);
            text = error.what();
          }
          EXPECT_NE(text.find(part), std::string::npos) << text;
          EXPECT_EQ(text.rfind(fmt::format("rank {} of 3, operation 2", world.rank()), 0), 0u) << text;
        },
        std::chrono::seconds(60));
  }
};

TEST_P(CheckedCalls, that_differ_fail_on_all_ranks_with_what_was_called) {
  expect_refused("rank 0 called all_reduce (sum) of 2 fp64, rank 1 called barrier", [](Communicator& c) {
    c.barrier();
    std::vector<double> values(2);
    if (c.rank() == 1) return c.barrier();
    c.all_reduce({values.data(), 2, DataType::kFloat64});
  });
  expect_refused("rank 0 called all_reduce (sum) of 4 int32, rank 2 called all_reduce (sum) of 3 int32",
                 [](Communicator& c) {
                   c.barrier();
                   std::vector<int32_t> values(4);
                   c.all_reduce({values.data(), c.rank() == 2 ? 3 : 4, DataType::kInt32});
                 });
  expect_refused("rank 0 called broadcast of 1 fp32 from 0, rank 1 called broadcast of 1 fp64 from 0",
                 [](Communicator& c) {
                   c.barrier();
                   double value = 0;
                   c.broadcast({&value, 1, c.rank() == 1 ? DataType::kFloat64 : DataType::kFloat32}, 0);
                 });
  expect_refused("rank 1 sends 2 elements to rank 2, which expects 1", [](Communicator& c) {
    c.barrier();
    const std::vector<int64_t> counts = {1, 1, c.rank() == 1 ? 2 : 1}, expected = {1, 1, 1};
    std::vector<int32_t> in(4), out(3);
    c.all_to_all({in.data(), c.rank() == 1 ? 4 : 3, DataType::kInt32}, counts,
                 {out.data(), 3, DataType::kInt32}, expected);
  });
}

TEST_P(CheckedCalls, that_agree_do_what_they_do_unchecked) {
  GetParam().run(
      3,
      [](Communicator& world) {
        const auto checked = check_calls(borrowed(world));
        const auto group = checked->split(world.rank() == 1, world.rank());
        EXPECT_EQ(group->size(), world.rank() == 1 ? 1 : 2);
        int64_t sum = world.rank() + 1;
        group->all_reduce({&sum, 1, DataType::kInt64});
        EXPECT_EQ(sum, world.rank() == 1 ? 2 : 4);
        const std::vector<int64_t> out_counts = {0, world.rank(), 2 * world.rank()};
        std::vector<int64_t> in_counts;
        for (int r = 0; r < 3; ++r) in_counts.push_back(r * world.rank());
        // Rank r sends r * s elements to rank s, each its own number.
        std::vector<int32_t> in(static_cast<size_t>(3 * world.rank()), world.rank()), out(in.size());
        checked->all_to_all({in.data(), 3 * world.rank(), DataType::kInt32}, in_counts,
                            {out.data(), 3 * world.rank(), DataType::kInt32}, out_counts);
        for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], static_cast<int>(i) < world.rank() ? 1 : 2);
      },
      std::chrono::seconds(60));
}

INSTANTIATE_TEST_SUITE_P(transports, CheckedCalls, ::testing::ValuesIn(kTransports),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace conclave::comm
