// SPDX-License-Identifier: Apache-2.0
// Buffers on a device, exchanged through the host.
#include <numeric>
#include <vector>

#include "comm/masked_memory.h"
#include "comm/ranks.h"

namespace conclave::comm {
namespace {

// The ranks of a transport, over the device.
class Staged : public ::testing::TestWithParam<std::tuple<Transport, int>> {
 protected:
  int size() const { return std::get<1>(GetParam()); }
  void run(const std::function<void(Communicator& host, Communicator& device, MaskedMemory& memory)>& body) {
    std::get<0>(GetParam())
        .run(
            size(),
            [&](Communicator& host) {
              const auto memory = std::make_shared<MaskedMemory>();
              const auto device = staged(borrowed(host), memory);
              EXPECT_EQ(device->rank(), host.rank());
              EXPECT_EQ(device->size(), size());
              body(host, *device, *memory);
            },
            std::chrono::seconds(60));
  }
};

TEST_P(Staged, operations_do_on_the_device_what_they_do_on_the_host) {
  run([](Communicator& host, Communicator& device, MaskedMemory&) {
    const int n = host.size(), me = host.rank();
    for (const int64_t count : {0, 1, 5}) {
      Values mine(static_cast<size_t>(count)), wide(static_cast<size_t>(n * count));
      std::iota(mine.begin(), mine.end(), 100 * me);
      std::iota(wide.begin(), wide.end(), 1000 * me);
      for (const auto reduction : {Reduction::kSum, Reduction::kMax}) {
        OnDevice reduced(mine);
        Values want = mine;
        device.all_reduce(reduced, reduction);
        host.all_reduce(on_host(want), reduction);
        EXPECT_EQ(reduced.values(), want);
      }
      OnDevice narrow_in(mine), wide_in(wide), narrow(count), gathered(n * count), exchanged(n * count),
          sent(mine);
      Values narrow_want(mine.size()), gathered_want(wide.size()), exchanged_want(wide.size()),
          sent_want = mine;
      device.reduce_scatter(wide_in, narrow);
      host.reduce_scatter(on_host(wide), on_host(narrow_want));
      EXPECT_EQ(narrow.values(), narrow_want);
      device.all_gather(narrow_in, gathered);
      host.all_gather(on_host(mine), on_host(gathered_want));
      EXPECT_EQ(gathered.values(), gathered_want);
      device.all_to_all_equal(wide_in, exchanged);
      host.all_to_all_equal(on_host(wide), on_host(exchanged_want));
      EXPECT_EQ(exchanged.values(), exchanged_want);
      device.broadcast(sent, n - 1);
      host.broadcast(on_host(sent_want), n - 1);
      EXPECT_EQ(sent.values(), sent_want);
      if (n > 1 && me == 0) device.send(narrow_in, 1);
      if (n > 1 && me == 1) {
        device.receive(narrow, 0);
        Values zeros(mine.size());
        std::iota(zeros.begin(), zeros.end(), 0);
        EXPECT_EQ(narrow.values(), zeros);
      }
      device.barrier();
      EXPECT_EQ(wide_in.values(), wide);
    }
  });
}

// Rank r sends (r + 2 t) % 3 values to rank t: some pairs, and with one rank all of them, exchange nothing.
TEST_P(Staged, an_uneven_exchange_may_be_empty_on_some_ranks) {
  run([](Communicator& host, Communicator& device, MaskedMemory&) {
    Values in_counts, out_counts, in;
    for (int t = 0; t < host.size(); ++t) {
      in_counts.push_back((host.rank() + 2 * t) % 3);
      out_counts.push_back((t + 2 * host.rank()) % 3);
      for (int i = 0; i < in_counts.back(); ++i) in.push_back(100 * host.rank() + 10 * t + i);
    }
    Values want(static_cast<size_t>(std::accumulate(out_counts.begin(), out_counts.end(), int64_t{0})));
    OnDevice from(in), to(static_cast<int64_t>(want.size()));
    device.all_to_all(from, in_counts, to, out_counts);
    host.all_to_all(on_host(in), in_counts, on_host(want), out_counts);
    EXPECT_EQ(to.values(), want);
  });
}

TEST_P(Staged, what_is_started_takes_the_values_of_the_start_and_brings_them_at_the_wait) {
  run([](Communicator& host, Communicator& device, MaskedMemory& memory) {
    const auto other = device.split(0, host.rank());  // that works meanwhile
    const int n = host.size();
    const int64_t me = host.rank(), all = n * (n - 1) / 2;
    OnDevice sum(Values{me}), mine(Values{10 * me}), gathered(n), parts(Values(static_cast<size_t>(n), me)),
        part(1), exchanged(n);
    const int brought = memory.to_devices + memory.withins;
    Work first = device.start_all_reduce(sum), second = other->start_all_gather(mine, gathered),
         third = device.start_reduce_scatter(parts, part),
         fourth = other->start_all_to_all_equal(parts, exchanged);
    if (n > 1) {
      EXPECT_EQ(memory.to_devices + memory.withins, brought);
    }
    second.wait();
    first.wait();
    fourth.wait();
    third.wait();
    EXPECT_EQ(sum.values(), Values{all});
    EXPECT_EQ(part.values(), Values{all});
    Values counted(static_cast<size_t>(n)), tens(counted.size());
    std::iota(counted.begin(), counted.end(), 0);
    for (size_t r = 0; r < tens.size(); ++r) tens[r] = 10 * counted[r];
    EXPECT_EQ(gathered.values(), tens);
    EXPECT_EQ(exchanged.values(), counted);
    host.barrier();
  });
}

TEST_P(Staged, groups_that_are_split_off_take_the_device_and_a_lone_rank_never_leaves_it) {
  run([](Communicator& host, Communicator& device, MaskedMemory& memory) {
    const auto part = device.split(host.rank() % 2, -host.rank());
    EXPECT_EQ(part->size(), (host.size() + 1 - host.rank() % 2) / 2);
    OnDevice sum(Values{1});
    part->all_reduce(sum);
    EXPECT_EQ(sum.values(), Values{part->size()});
    const auto alone = device.split(host.rank(), 0);
    const int copies = memory.to_hosts + memory.to_devices, withins = memory.withins;
    OnDevice in(Values{7, host.rank()}), out(2);
    alone->all_gather(in, out);
    alone->all_reduce(in);
    alone->broadcast(in, 0);
    alone->all_to_all_equal(in, in);
    EXPECT_EQ(out.values(), (Values{7, host.rank()}));
    EXPECT_EQ(memory.to_hosts + memory.to_devices, copies);
    EXPECT_EQ(memory.withins, withins + 1);
  });
}

TEST_P(Staged, takes_what_lies_on_the_device_only) {
  run([](Communicator&, Communicator& device, MaskedMemory&) {
    EXPECT_TRUE(device.takes(Place::kDevice));
    EXPECT_FALSE(device.takes(Place::kHost));
    Values values = {1};
    OnDevice same(1);
    EXPECT_THROW(device.all_reduce(on_host(values)), Error);
    EXPECT_THROW(device.all_to_all_equal(same, on_host(values)), Error);
    device.barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(, Staged,
                         ::testing::Combine(::testing::ValuesIn(kTransports), ::testing::Values(1, 2, 3)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) +
                                  std::to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace conclave::comm
