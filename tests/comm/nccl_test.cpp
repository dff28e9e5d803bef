// SPDX-License-Identifier: Apache-2.0
// What the NCCL transport does when things go well and when they do not, on a library that tests command.
#include "conclave/comm/nccl.h"

#include <functional>
#include <numeric>
#include <thread>

#include "comm/fake_nccl.h"
#include "comm/ranks.h"

namespace conclave::comm {
namespace {

using std::chrono::milliseconds;

Buffer on_device(void* data, int64_t count, DataType type) {
  return {data, count, type, Place::kDevice};
}

// Of one rank.
struct Rank {
  Communicator& host;
  std::shared_ptr<FakeNccl> nccl;
  std::shared_ptr<FakeDevice> device = std::make_shared<FakeDevice>();
  std::string cause = {}, record = {};
  int failures = 0;

  std::unique_ptr<Communicator> connect(milliseconds timeout = milliseconds(20000)) {
    return connect_nccl(
        nccl, device, borrowed(host),
        {.timeout = timeout, .poll = milliseconds(2), .on_failure = [this](auto& why, auto& last) {
           cause = why;
           record = last;
           ++failures;
         }});
  }
};

void on_ranks(int n, const std::function<void(Rank&)>& body) {
  const auto world = std::make_shared<FakeNccl::World>();
  run_ranks(n, [&](Communicator& host) {
    Rank rank{.host = host, .nccl = std::make_shared<FakeNccl>(world, host)};
    body(rank);
    EXPECT_EQ(rank.nccl->live, 0) << "every communicator is destroyed or aborted, once";
    EXPECT_EQ(rank.device->streams, 0);
    EXPECT_EQ(rank.device->events, 0);
  });
}
void on_one_rank(const std::function<void(Rank&)>& body) {
  on_ranks(1, body);
}

template <class F>
std::string failure_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kCommunication) << error.what();
    return error.what();
  }
  return "nothing failed";
}
void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

void wait_until(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_TRUE(condition());
}

TEST(Nccl, moves_what_the_other_transports_move) {
  for (const int size : {1, 2, 3}) {
    on_ranks(size, [](Rank& rank) {
      rank.nccl->polls_until_ready = 3;
      const auto ranks = rank.connect();
      const int n = ranks->size(), me = ranks->rank();
      // Rank r sends (r + 2 t) % 3 values to rank t: some pairs exchange nothing.
      std::vector<int64_t> in_counts, out_counts;
      std::vector<float> in, out, want;
      for (int t = 0; t < n; ++t) {
        in_counts.push_back((me + 2 * t) % 3);
        out_counts.push_back((t + 2 * me) % 3);
        for (int i = 0; i < in_counts.back(); ++i) in.push_back(static_cast<float>(100 * me + 10 * t + i));
        for (int i = 0; i < out_counts.back(); ++i) want.push_back(static_cast<float>(100 * t + 10 * me + i));
      }
      out.resize(want.size());
      ranks->all_to_all(on_device(in.data(), static_cast<int64_t>(in.size()), DataType::kFloat32), in_counts,
                        on_device(out.data(), static_cast<int64_t>(out.size()), DataType::kFloat32),
                        out_counts);
      EXPECT_EQ(out, want);
      int64_t sum = me + 1, root = me;
      ranks->all_reduce(on_device(&sum, 1, DataType::kInt64));
      EXPECT_EQ(sum, n * (n + 1) / 2);
      ranks->broadcast(on_device(&root, 1, DataType::kInt64), n - 1);
      EXPECT_EQ(root, n - 1);
      std::vector<int32_t> all(static_cast<size_t>(n)), mine = {me};
      ranks->all_gather(on_device(mine.data(), 1, DataType::kInt32),
                        on_device(all.data(), n, DataType::kInt32));
      std::vector<int32_t> counted(all.size());
      std::iota(counted.begin(), counted.end(), 0);
      EXPECT_EQ(all, counted);
      ranks->reduce_scatter(on_device(counted.data(), n, DataType::kInt32),
                            on_device(mine.data(), 1, DataType::kInt32));
      EXPECT_EQ(mine[0], n * me);
      if (me == 0 && n > 1) ranks->send(on_device(&sum, 1, DataType::kInt64), 1);
      if (me == 1) ranks->receive(on_device(&root, 1, DataType::kInt64), 0);
      EXPECT_EQ(root, me == 1 ? sum : n - 1);
      const auto part = ranks->split(me % 2, -me);
      EXPECT_EQ(part->size(), (n + 1 - me % 2) / 2);
      part->barrier();
    });
  }
}

TEST(Nccl, equal_parts_travel_in_one_call_of_the_library) {
  on_ranks(3, [](Rank& rank) {
    rank.nccl->polls_until_ready = 3;
    const auto ranks = rank.connect();
    const int me = ranks->rank();
    std::vector<int32_t> in, out(6), want;
    for (int t = 0; t < 3; ++t) {
      for (int i = 0; i < 2; ++i) {
        in.push_back(100 * me + 10 * t + i);
        want.push_back(100 * t + 10 * me + i);
      }
    }
    ranks->all_to_all_equal(on_device(in.data(), 6, DataType::kInt32),
                            on_device(out.data(), 6, DataType::kInt32));
    EXPECT_EQ(out, want);
    ranks->all_to_all_equal(on_device(nullptr, 0, DataType::kInt32), on_device(nullptr, 0, DataType::kInt32));
    EXPECT_EQ(rank.nccl->equal_exchanges, 1);
    EXPECT_EQ(rank.nccl->sends, 0);
    ranks->barrier();
  });
}

TEST(Nccl, takes_what_lies_on_the_device_only) {
  on_one_rank([](Rank& rank) {
    const auto ranks = rank.connect();
    EXPECT_TRUE(ranks->takes(Place::kDevice));
    EXPECT_FALSE(ranks->takes(Place::kHost));
    float value = 1;
    EXPECT_THROW(ranks->all_reduce({&value, 1, DataType::kFloat32}), Error);
  });
}

TEST(Nccl, the_host_waits_for_no_operation) {
  on_one_rank([](Rank& rank) {
    const auto ranks = rank.connect();
    rank.device->done = false;
    float value = 1;
    const int before = rank.device->waits_of_caller;
    auto work = ranks->start_all_reduce(on_device(&value, 1, DataType::kFloat32));
    EXPECT_EQ(rank.device->waits_of_caller, before);
    work.wait();  // puts the caller's stream behind it, and returns
    EXPECT_EQ(rank.device->waits_of_caller, before + 1);
    rank.device->done = true;
  });
}

TEST(Nccl, an_operation_that_does_not_end_is_aborted_and_named_with_those_before_it) {
  on_one_rank([](Rank& rank) {
    const auto ranks = rank.connect(milliseconds(100));
    float value = 1;
    ranks->all_reduce(on_device(&value, 1, DataType::kFloat32));
    std::this_thread::sleep_for(milliseconds(30));
    rank.device->done = false;
    const std::vector<int64_t> counts = {1};
    auto work = ranks->start_all_to_all(on_device(&value, 1, DataType::kFloat32), counts,
                                        on_device(&value, 1, DataType::kFloat32), counts);
    wait_until([&] { return rank.nccl->aborted == 1; });
    const auto message = failure_of([&] { work.wait(); });
    expect_has(message, "all_to_all of 1 fp32 (operation 2 of world) did not end in 0.1 s");
    expect_has(message, "a rank is gone, or called something else");
    EXPECT_NE(failure_of([&] { ranks->all_reduce(on_device(&value, 1, DataType::kFloat32)); }),
              "nothing failed");
    wait_until([&] { return rank.failures == 1; });
    EXPECT_EQ(rank.record,
              "world operation 1: all_reduce of 1 fp32, ended\n"
              "world operation 2: all_to_all of 1 fp32, not ended\n");
  });
}

TEST(Nccl, equal_parts_that_do_not_arrive_are_aborted_and_named) {
  on_one_rank([](Rank& rank) {
    const auto ranks = rank.connect(milliseconds(100));
    rank.device->done = false;
    float in = 1, out = 0;
    auto work = ranks->start_all_to_all_equal(on_device(&in, 1, DataType::kFloat32),
                                              on_device(&out, 1, DataType::kFloat32));
    wait_until([&] { return rank.nccl->aborted == 1; });
    expect_has(failure_of([&] { work.wait(); }),
               "all_to_all in equal parts of 1 fp32 (operation 1 of world) did not end in 0.1 s");
  });
  on_one_rank([](Rank& rank) {
    const auto ranks = rank.connect();
    ranks->abort("out of memory");
    float in = 1, out = 0;
    expect_has(failure_of([&] {
                 ranks->all_to_all_equal(on_device(&in, 1, DataType::kFloat32),
                                         on_device(&out, 1, DataType::kFloat32));
               }),
               "all_to_all in equal parts of 1 fp32 failed: out of memory");
    EXPECT_EQ(rank.nccl->equal_exchanges, 0);
  });
}

TEST(Nccl, what_nccl_and_the_device_report_by_themselves_ends_the_run) {
  on_one_rank([](Rank& rank) {
    const auto ranks = rank.connect();
    const auto part = ranks->split(0, 0);
    {
      const std::lock_guard lock(rank.nccl->mutex);
      rank.nccl->async_failure = "remote process exited";
    }
    wait_until([&] { return rank.nccl->aborted == 2; });  // both communicators
    expect_has(failure_of([&] { (void)part->split(0, 0); }), "NCCL: remote process exited");
  });
  on_one_rank([](Rank& rank) {
    const auto ranks = rank.connect();
    float value = 1;
    rank.device->broken = true;
    auto work = ranks->start_all_reduce(on_device(&value, 1, DataType::kFloat32));
    wait_until([&] { return rank.nccl->aborted == 1; });
    expect_has(failure_of([&] { work.wait(); }), "an illegal memory access");
  });
}

TEST(Nccl, a_call_that_is_refused_names_the_operation) {
  on_one_rank([](Rank& rank) {
    const auto ranks = rank.connect();
    float value = 1;
    rank.nccl->fails_to_start = true;
    expect_has(failure_of([&] { ranks->all_reduce(on_device(&value, 1, DataType::kFloat32)); }),
               "rank 0 of 1: all_reduce of 1 fp32 failed: all_reduce of 1 fp32: NCCL: invalid argument");
  });
}

TEST(Nccl, ranks_that_do_not_connect_in_time_are_given_up) {
  on_one_rank([](Rank& rank) {
    rank.nccl->polls_until_ready = 1 << 30;
    expect_has(failure_of([&] { rank.connect(milliseconds(60)); }),
               "connect (world) took longer than 0.06 s");
    EXPECT_EQ(rank.nccl->aborted, 1);
  });
}

TEST(Nccl, a_run_that_is_ended_while_it_connects_goes_no_further) {
  on_one_rank([](Rank& rank) {
    rank.nccl->polls_until_ready = 1 << 30;
    std::thread other([&] {
      std::this_thread::sleep_for(milliseconds(30));
      rank.host.abort("rank 5 has no memory left");
    });
    expect_has(failure_of([&] { rank.connect(); }), "rank 5 has no memory left");
    other.join();
    EXPECT_EQ(rank.nccl->aborted, 1);
  });
}

TEST(Nccl, a_rank_that_gives_up_ends_the_operations_of_the_others) {
  on_ranks(2, [](Rank& rank) {
    const auto ranks = rank.connect();
    rank.host.barrier();
    if (ranks->rank() == 1) {
      ranks->abort("out of memory");
      return;
    }
    rank.device->done = false;  // of an operation that rank 1 does not take part in
    float value = 1;
    ranks->send(on_device(&value, 1, DataType::kFloat32), 1);
    wait_until([&] { return rank.failures == 1; });
    expect_has(failure_of([&] { ranks->send(on_device(&value, 1, DataType::kFloat32), 1); }),
               "rank 1 gave up: out of memory");
  });
}

TEST(Nccl, ranks_that_wait_for_each_other_are_told_what_each_of_them_waits_for) {
  on_ranks(2, [](Rank& rank) {
    const auto ranks = rank.connect(milliseconds(100));
    rank.host.barrier();
    rank.device->done = false;  // both send, and neither receives
    float value = 1;
    ranks->send(on_device(&value, 1, DataType::kFloat32), 1 - ranks->rank());
    wait_until([&] { return rank.failures == 1; });
    EXPECT_EQ(rank.record, "world operation 1: send of 1 fp32, not ended\n");
  });
}

TEST(Nccl, a_library_of_another_version_is_refused) {
  on_one_rank([](Rank& rank) {
    rank.nccl->loaded_version = 22703;
    try {
      rank.connect();
      ADD_FAILURE() << "connected";
    } catch (const Error& error) {
      expect_has(error.what(), "NCCL 2.27.3 is loaded, but this program was built with 2.28.9");
    }
    rank.nccl->loaded_version = 22812;
    rank.connect();
  });
}

}  // namespace
}  // namespace conclave::comm
