// SPDX-License-Identifier: Apache-2.0
// Laws that hold for every transport.
#include "conclave/comm/communicator.h"

#include <numeric>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "ranks.h"

namespace conclave::comm {
namespace {

template <class T>
constexpr DataType type_of() {
  if constexpr (std::is_same_v<T, int32_t>) return DataType::kInt32;
  if constexpr (std::is_same_v<T, int64_t>) return DataType::kInt64;
  if constexpr (std::is_same_v<T, float>) return DataType::kFloat32;
  return DataType::kFloat64;
}
template <class T>
Buffer buffer(std::vector<T>& values) {
  return {values.data(), static_cast<int64_t>(values.size()), type_of<T>()};
}

class EveryTransport : public ::testing::TestWithParam<std::tuple<Transport, int>> {
 protected:
  int size() const { return std::get<1>(GetParam()); }
  void run(const std::function<void(Communicator&)>& body) const {
    std::get<0>(GetParam()).run(size(), body, std::chrono::seconds(60));
  }
};

TEST_P(EveryTransport, reduces_in_every_type_and_all_ranks_get_the_same_bits) {
  run([this](Communicator& c) {
    const auto check = [&]<class T>(T) {
      std::vector<T> sum(7), most(7);
      for (int i = 0; i < 7; ++i) {
        sum[static_cast<size_t>(i)] = static_cast<T>((c.rank() + 1) * (i - 3));
        most[static_cast<size_t>(i)] = static_cast<T>(i % 2 ? c.rank() : -c.rank());
      }
      c.all_reduce(buffer(sum));
      c.all_reduce(buffer(most), Reduction::kMax);
      for (int i = 0; i < 7; ++i) {
        EXPECT_EQ(sum[static_cast<size_t>(i)], static_cast<T>(size() * (size() + 1) / 2 * (i - 3)));
        EXPECT_EQ(most[static_cast<size_t>(i)], static_cast<T>(i % 2 ? size() - 1 : 0));
      }
    };
    check(int32_t());
    check(int64_t());
    check(float());
    check(double());
    std::vector<double> thirds = {1.0 / (3.0 + c.rank()), 1e17 * (c.rank() % 2 ? -1 : 1)};
    c.all_reduce(buffer(thirds));
    std::vector<double> all(static_cast<size_t>(2 * size()));
    c.all_gather(buffer(thirds), buffer(all));
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], thirds[i % 2]);
  });
}

// So that the bits do not depend on what moves them: (1e17 - 1e17) + 1 is not 1e17 + (1 - 1e17).
TEST_P(EveryTransport, reduces_and_scatters_in_the_order_of_ranks) {
  run([this](Communicator& c) {
    const auto value = [&](int rank, int to, int i) {
      return i == 0 ? (rank % 3 == 0 ? 1e17 : rank % 3 == 1 ? -1e17 : 1.0) : 100.0 * to + rank;
    };
    std::vector<double> in;
    for (int to = 0; to < size(); ++to) {
      for (int i = 0; i < 2; ++i) in.push_back(value(c.rank(), to, i));
    }
    std::vector<double> out(2), expected(2, 0.0);
    for (int r = 0; r < size(); ++r) {
      for (int i = 0; i < 2; ++i) expected[static_cast<size_t>(i)] += value(r, c.rank(), i);
    }
    c.reduce_scatter(buffer(in), buffer(out));
    EXPECT_EQ(out, expected);
    std::vector<float> wrong(3);
    EXPECT_THROW(c.reduce_scatter(buffer(in), buffer(wrong)), Error);
  });
}

TEST_P(EveryTransport, starts_operations_that_are_waited_for_later) {
  run([this](Communicator& c) {
    const auto other = c.split(0, c.rank());  // that works meanwhile
    std::vector<int64_t> sum = {c.rank()}, mine = {10 * c.rank()}, all(static_cast<size_t>(size()));
    std::vector<int64_t> parts(static_cast<size_t>(size()), c.rank()), part(1);
    Work first = c.start_all_reduce(buffer(sum)), second = c.start_all_gather(buffer(mine), buffer(all)),
         third = c.start_reduce_scatter(buffer(parts), buffer(part));
    std::vector<int64_t> meanwhile = {1};
    other->all_reduce(buffer(meanwhile));
    EXPECT_EQ(meanwhile[0], size());
    first.wait();
    second.wait();
    third.wait();
    const int64_t ranks = size() * (size() - 1) / 2;
    EXPECT_EQ(sum[0], ranks);
    EXPECT_EQ(all.back(), 10 * (size() - 1));
    EXPECT_EQ(part[0], ranks);
    first.wait();  // is done: nothing happens
    {
      std::vector<int64_t> again = {2};
      { const Work forgotten = c.start_all_reduce(buffer(again)); }  // waits as well
      EXPECT_EQ(again[0], 2 * size());
    }
  });
}

TEST_P(EveryTransport, sends_from_one_to_another_in_order) {
  run([this](Communicator& c) {
    const int next = (c.rank() + 1) % size(), last = (c.rank() + size() - 1) % size();
    std::vector<float> out(3), none;
    if (size() == 1) {
      EXPECT_THROW(c.send(buffer(out), 0), Error);
      return;
    }
    // The first rank receives before it sends, so that nobody relies on a buffer in between.
    const auto send = [&](float value) {
      std::vector<float> in = {value, value + c.rank(), -1};
      c.send(buffer(in), next);
    };
    const auto receive = [&](float value) {
      c.receive(buffer(out), last);
      EXPECT_EQ(out, (std::vector<float>{value, value + last, -1}));
    };
    for (const float value : {5.0f, 6.0f}) {
      if (c.rank() == 0) receive(value);
      send(value);
      if (c.rank() != 0) receive(value);
    }
    c.barrier();
  });
}

TEST_P(EveryTransport, gathers_in_the_order_of_ranks_and_broadcasts_from_any) {
  run([this](Communicator& c) {
    std::vector<int32_t> mine = {c.rank(), 10 * c.rank()}, all(static_cast<size_t>(2 * size()));
    c.all_gather(buffer(mine), buffer(all));
    for (int r = 0; r < size(); ++r) {
      EXPECT_EQ(all[static_cast<size_t>(2 * r)], r);
      EXPECT_EQ(all[static_cast<size_t>(2 * r + 1)], 10 * r);
    }
    for (int root = 0; root < size(); ++root) {
      std::vector<int64_t> value = {c.rank() == root ? 77 + root : 0};
      c.broadcast(buffer(value), root);
      EXPECT_EQ(value[0], 77 + root);
    }
    c.barrier();
  });
}

// Rank s sends (s + 2r) % 4 values to rank r: some nothing.
TEST_P(EveryTransport, moves_uneven_and_empty_parts_to_their_ranks) {
  run([this](Communicator& c) {
    const auto count = [](int from, int to) { return int64_t{(from + 2 * to) % 4}; };
    std::vector<int64_t> in_counts, out_counts;
    std::vector<float> in;
    for (int r = 0; r < size(); ++r) {
      in_counts.push_back(count(c.rank(), r));
      out_counts.push_back(count(r, c.rank()));
      for (int64_t i = 0; i < in_counts.back(); ++i)
        in.push_back(static_cast<float>(100 * c.rank() + 10 * r + i));
    }
    std::vector<float> out(
        static_cast<size_t>(std::accumulate(out_counts.begin(), out_counts.end(), int64_t{0})));
    c.all_to_all(buffer(in), in_counts, buffer(out), out_counts);
    size_t at = 0;
    for (int r = 0; r < size(); ++r) {
      for (int64_t i = 0; i < out_counts[static_cast<size_t>(r)]; ++i) {
        EXPECT_EQ(out[at++], static_cast<float>(100 * r + 10 * c.rank() + i));
      }
    }
  });
}

TEST_P(EveryTransport, equal_parts_arrive_as_counts_of_the_same_size_do) {
  run([this](Communicator& c) {
    for (const int64_t each : {0, 1, 3}) {
      std::vector<int64_t> in(static_cast<size_t>(each * size())), equal(in.size()), counted(in.size());
      std::iota(in.begin(), in.end(), 1000 * c.rank());
      const std::vector<int64_t> counts(static_cast<size_t>(size()), each);
      c.all_to_all(buffer(in), counts, buffer(counted), counts);
      auto work = c.start_all_to_all_equal(buffer(in), buffer(equal));
      work.wait();
      EXPECT_EQ(equal, counted);
      if (each == 0) continue;
      EXPECT_EQ(equal.back(), 1000 * (size() - 1) + each * c.rank() + each - 1);
    }
  });
}

TEST_P(EveryTransport, moves_bytes_and_bf16_bit_for_bit) {
  run([this](Communicator& c) {
    std::vector<uint16_t> in(static_cast<size_t>(size())), out(in.size());
    std::iota(in.begin(), in.end(),
              static_cast<uint16_t>(0x7f81 + 16 * c.rank()));  // NaN patterns among them
    const std::vector<int64_t> ones(in.size(), 1);
    c.all_to_all({in.data(), size(), DataType::kBFloat16}, ones, {out.data(), size(), DataType::kBFloat16},
                 ones);
    for (int r = 0; r < size(); ++r) EXPECT_EQ(out[static_cast<size_t>(r)], 0x7f81 + 16 * r + c.rank());
    std::vector<uint8_t> byte = {static_cast<uint8_t>(c.rank())}, all(static_cast<size_t>(size()));
    c.all_gather({byte.data(), 1, DataType::kUInt8}, {all.data(), size(), DataType::kUInt8});
    EXPECT_EQ(all.back(), size() - 1);
  });
}

TEST_P(EveryTransport, nothing_at_all_is_an_ordinary_amount) {
  run([this](Communicator& c) {
    std::vector<double> none;
    const std::vector<int64_t> zeros(static_cast<size_t>(size()), 0);
    c.all_reduce(buffer(none));
    c.all_gather(buffer(none), buffer(none));
    c.all_to_all(buffer(none), zeros, buffer(none), zeros);
    c.broadcast(buffer(none), 0);
  });
}

TEST_P(EveryTransport, splits_by_color_and_orders_by_key) {
  run([this](Communicator& c) {
    const auto part = c.split(c.rank() % 2, -c.rank());  // backwards
    EXPECT_EQ(part->size(), (size() + 1 - c.rank() % 2) / 2);
    EXPECT_EQ(part->rank(), part->size() - 1 - c.rank() / 2);
    std::vector<int64_t> sum = {c.rank()};
    part->all_reduce(buffer(sum));
    int64_t expected = 0;
    for (int r = c.rank() % 2; r < size(); r += 2) expected += r;
    EXPECT_EQ(sum[0], expected);
    const auto alone = part->split(part->rank(), 0);
    EXPECT_EQ(alone->size(), 1);
    c.barrier();
  });
}

TEST_P(EveryTransport, wrong_sizes_are_refused_before_anything_moves) {
  run([this](Communicator& c) {
    std::vector<float> a(3), b(4);
    EXPECT_THROW(c.all_gather(buffer(a), buffer(b)), Error);
    EXPECT_THROW(c.all_to_all(buffer(a), std::vector<int64_t>(static_cast<size_t>(size()), 5), buffer(b),
                              std::vector<int64_t>(static_cast<size_t>(size()), 0)),
                 Error);
    EXPECT_THROW(c.all_reduce({a.data(), 1, DataType::kBFloat16}), Error);
    EXPECT_THROW(c.broadcast(buffer(a), size()), Error);
    EXPECT_THROW(c.all_to_all_equal(buffer(a), buffer(b)), Error);
    if (size() == 1) return;
    std::vector<float> odd(static_cast<size_t>(size() + 1)), out(odd.size());
    EXPECT_THROW(c.all_to_all_equal(buffer(odd), buffer(out)), Error);
  });
}

TEST_P(EveryTransport, what_lies_on_a_device_is_refused_by_those_that_know_the_host) {
  run([this](Communicator& c) {
    EXPECT_TRUE(c.takes(Place::kHost));
    EXPECT_FALSE(c.takes(Place::kDevice));
    const Buffer none{nullptr, 0, DataType::kFloat32, Place::kDevice};
    const std::vector<int64_t> zeros(static_cast<size_t>(size()), 0);
    EXPECT_THROW(c.all_reduce(none), Error);
    EXPECT_THROW(c.reduce_scatter(none, none), Error);
    EXPECT_THROW(c.all_gather(none, none), Error);
    EXPECT_THROW(c.broadcast(none, 0), Error);
    EXPECT_THROW(c.all_to_all(none, zeros, none, zeros), Error);
    EXPECT_THROW(c.all_to_all_equal(none, none), Error);
    EXPECT_THROW(c.send(none, 1), Error);
    EXPECT_THROW(c.receive(none, 1), Error);
    c.barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(, EveryTransport,
                         ::testing::Combine(::testing::ValuesIn(kTransports), ::testing::Values(1, 2, 3, 5)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(SingleCommunicator, is_a_communicator_of_one) {
  const auto c = make_single_communicator();
  EXPECT_EQ(c->size(), 1);
  std::vector<float> in = {1, 2}, out(2);
  const std::vector<int64_t> two = {2};
  c->all_to_all(buffer(in), two, buffer(out), two);
  EXPECT_EQ(out, in);
  c->all_reduce(buffer(in));
  EXPECT_EQ(in, (std::vector<float>{1, 2}));
  EXPECT_EQ(c->split(3, 4)->size(), 1);
}

TEST(Places, that_do_not_fit_are_told_apart) {
  const auto c = make_single_communicator();
  std::vector<float> values(2);
  const Buffer host = buffer(values), device{values.data(), 2, DataType::kFloat32, Place::kDevice};
  const auto expect_refused = [&](Buffer in, Buffer out, const std::string& why) {
    try {
      c->all_gather(in, out);
      ADD_FAILURE() << "taken";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  expect_refused(host, device, "all_gather: one buffer lies on the host, the other on the device");
  expect_refused(
      device, device,
      "all_gather: the buffer lies on the device, and this communicator takes those on the host only");
}

// What goes wrong is an error on every rank, not a hang.

std::string failure(RunRanks run, int size, const std::function<void(Communicator&)>& body,
                    std::chrono::milliseconds deadline = std::chrono::seconds(20)) {
  try {
    run(size, body, deadline);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Threads, different_operations_are_an_error_that_names_both) {
  const auto message = failure(run_ranks, 3, [](Communicator& c) {
    std::vector<float> a(static_cast<size_t>(c.rank() == 1 ? 4 : 3));
    c.all_reduce(buffer(a));
  });
  EXPECT_NE(message.find("all_reduce of 3 fp32"), std::string::npos) << message;
  EXPECT_NE(message.find("all_reduce of 4 fp32"), std::string::npos) << message;
}

TEST(Threads, counts_that_do_not_meet_are_an_error) {
  const auto message = failure(run_ranks, 2, [](Communicator& c) {
    std::vector<float> in(2), out(4);
    const std::vector<int64_t> ones = {1, 1}, twos = {2, 2};
    c.rank() == 0 ? c.all_to_all(buffer(in), ones, buffer(out), twos)
                  : c.all_to_all(buffer(in), ones, buffer(in), ones);
  });
  EXPECT_NE(message.find("sends 1 elements to rank 0, which expects 2"), std::string::npos) << message;
}

TEST(EveryTransportFails, when_one_rank_throws_the_others_do_not_hang) {
  for (const auto& transport : kTransports) {
    const auto message = failure(transport.run, 3, [](Communicator& c) {
      c.barrier();
      if (c.rank() == 1) throw Error("rank 1 has had enough");
      std::vector<float> a(5);
      c.all_reduce(buffer(a));
    });
    EXPECT_EQ(message, "rank 1 has had enough") << transport.name;
  }
}

TEST(EveryTransportFails, the_others_learn_who_gave_up_and_why) {
  for (const auto& transport : kTransports) {
    EXPECT_EQ(failure(transport.run, 3,
                      [](Communicator& c) {
                        const auto part = c.split(0, -c.rank());
                        if (c.rank() == 2) {
                          c.abort("the disk is full");
                          throw Error("root");
                        }
                        std::vector<float> a(5);
                        try {
                          part->all_reduce(buffer(a));
                          ADD_FAILURE() << "nobody gave up";
                        } catch (const Error& error) {
                          const std::string text = error.what();
                          EXPECT_EQ(error.kind(), Error::Kind::kCommunication);
                          EXPECT_NE(text.find("rank 2 gave up: the disk is full"), std::string::npos) << text;
                        }
                        // The process goes on until all have heard it.
                        std::this_thread::sleep_for(std::chrono::milliseconds(500));
                      }),
              "root")
        << transport.name;
  }
}

TEST(EveryTransportFails, a_rank_that_does_not_come_is_noticed_at_the_deadline) {
  const auto body = [](Communicator& c) {
    if (c.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    c.barrier();
  };
  const auto message = failure(run_ranks, 2, body, std::chrono::milliseconds(300));
  EXPECT_NE(message.find("only 1 of 2 ranks came to barrier within 300 ms"), std::string::npos) << message;
}

}  // namespace
}  // namespace conclave::comm
