// SPDX-License-Identifier: Apache-2.0
// Who gets which call of communicators that are made of others.
#include <string>
#include <vector>

#include "comm/masked_memory.h"
#include "comm/ranks.h"
#include "conclave/comm/checked.h"
#include "conclave/comm/counting.h"
#include "conclave/comm/groups.h"

namespace conclave::comm {
namespace {

// Writes down what it is asked for. Moves nothing but what ranks tell each other about a call.
class Double : public Communicator {
 public:
  Double(int size, Place place, int rank = 0) : size_(size), rank_(rank), place_(place) {}
  std::vector<std::string> calls = {};
  std::optional<std::string> reason = {};
  bool fails = false;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool takes(Place place) const override { return place == place_; }
  void abort(const std::string& why) override { reason = why; }
  std::optional<std::string> stopped() const override { return reason; }
  std::unique_ptr<Communicator> split(int, int) override {
    calls.push_back("split");
    return std::make_unique<Double>(1, place_);
  }

 private:
  Work called(const char* what) {
    calls.push_back(what);
    return Work([this] {
      if (fails) throw Error("the cable is cut", Error::Kind::kCommunication);
    });
  }
  Work do_all_reduce(Buffer, Reduction) override { return called("all_reduce"); }
  Work do_reduce_scatter(ConstBuffer, Buffer, Content) override { return called("reduce_scatter"); }
  Work do_all_gather(ConstBuffer in, Buffer out, Content) override {
    std::memcpy(out.data, in.data, static_cast<size_t>(in.num_bytes()));
    return called("all_gather");
  }
  void do_broadcast(Buffer, int) override { called("broadcast").wait(); }
  Work do_all_to_all(ConstBuffer, std::span<const int64_t>, Buffer, std::span<const int64_t>,
                     Content) override {
    return called("all_to_all");
  }
  Work do_all_to_all_equal(ConstBuffer, Buffer, Content) override { return called("all_to_all_equal"); }
  void do_send(ConstBuffer, int) override { called("send").wait(); }
  void do_receive(Buffer, int) override { called("receive").wait(); }
  void do_barrier() override { called("barrier").wait(); }

  int size_, rank_;
  Place place_;
};
const std::vector<std::string> kEveryCall = {"all_reduce", "reduce_scatter",   "all_gather", "broadcast",
                                             "all_to_all", "all_to_all_equal", "send",       "receive"};

// Every operation but the barrier, between two ranks, in the order of kEveryCall.
void call_all(Communicator& ranks, Place place) {
  int64_t values[4] = {}, more[4] = {};
  const Buffer one{values, 1, DataType::kInt64, place}, two{values, 2, DataType::kInt64, place},
      out_one{more, 1, DataType::kInt64, place}, out_two{more, 2, DataType::kInt64, place};
  const Values counts = {1, 1};
  ranks.all_reduce(one);
  ranks.reduce_scatter(two, out_one);
  ranks.all_gather(one, out_two);
  ranks.broadcast(one, 0);
  ranks.all_to_all(two, counts, out_two, counts);
  ranks.all_to_all_equal(two, out_two);
  ranks.send(one, 1);
  ranks.receive(out_one, 1);
}

TEST(StagedCalls, hands_every_operation_to_its_namesake_on_the_host) {
  const auto host = std::make_shared<Double>(2, Place::kHost);
  call_all(*staged(host, std::make_shared<MaskedMemory>()), Place::kDevice);
  EXPECT_EQ(host->calls, kEveryCall);
}

TEST(StagedCalls, an_operation_that_fails_brings_nothing) {
  const auto host = std::make_shared<Double>(2, Place::kHost);
  const auto memory = std::make_shared<MaskedMemory>();
  const auto ranks = staged(host, memory);
  OnDevice value(1), out(2);
  host->fails = true;
  EXPECT_THROW(ranks->all_reduce(value), Error);
  EXPECT_THROW(ranks->all_gather(value, out), Error);
  EXPECT_THROW(ranks->receive(value, 1), Error);
  EXPECT_EQ(memory->to_devices, 0);
  ranks->abort("enough");
  EXPECT_EQ(host->stopped(), "enough");
  EXPECT_EQ(ranks->stopped(), "enough");
}

TEST(HostAndDevice, every_operation_goes_where_its_buffers_lie) {
  for (const auto place : {Place::kHost, Place::kDevice}) {
    const auto host = std::make_shared<Double>(2, Place::kHost),
               device = std::make_shared<Double>(2, Place::kDevice);
    const auto ranks = host_and_device(host, device);
    EXPECT_TRUE(ranks->takes(place));
    call_all(*ranks, place);
    EXPECT_EQ((place == Place::kHost ? host : device)->calls, kEveryCall);
    EXPECT_TRUE((place == Place::kHost ? device : host)->calls.empty());
  }
  const auto host = std::make_shared<Double>(2, Place::kHost),
             device = std::make_shared<Double>(2, Place::kDevice);
  const auto ranks = host_and_device(host, device);
  ranks->barrier();
  const auto part = ranks->split(0, 0);
  EXPECT_EQ(host->calls, (std::vector<std::string>{"barrier", "split"}));
  EXPECT_EQ(device->calls, (std::vector<std::string>{"split"}));
  EXPECT_TRUE(part->takes(Place::kHost) && part->takes(Place::kDevice));
  Values values = {1};
  OnDevice other(1);
  EXPECT_THROW(ranks->all_to_all_equal(on_host(values), other), Error);
}

TEST(HostAndDevice, both_hear_of_the_end_and_the_first_that_knows_tells_why) {
  const auto host = std::make_shared<Double>(2, Place::kHost),
             device = std::make_shared<Double>(2, Place::kDevice);
  const auto ranks = host_and_device(host, device);
  EXPECT_FALSE(ranks->stopped());
  device->reason = "a link went down";
  EXPECT_EQ(ranks->stopped(), "a link went down");
  ranks->abort("enough");
  EXPECT_EQ(host->reason, "enough");
  EXPECT_EQ(device->reason, "enough");
}

TEST(HostAndDevice, of_different_ranks_or_places_are_refused) {
  const auto on = [](int size, Place place, int rank = 0) {
    return std::make_shared<Double>(size, place, rank);
  };
  EXPECT_THROW(host_and_device(on(2, Place::kHost), on(3, Place::kDevice)), Error);
  EXPECT_THROW(host_and_device(on(2, Place::kHost), on(2, Place::kDevice, 1)), Error);
  EXPECT_THROW(host_and_device(on(2, Place::kHost), on(2, Place::kHost)), Error);
  EXPECT_THROW(host_and_device(on(2, Place::kDevice), on(2, Place::kDevice)), Error);
  EXPECT_THROW(staged(on(2, Place::kDevice), nullptr), Error);
}

TEST(HostAndDevice, operations_in_both_places_run_at_once) {
  run_ranks(3, [](Communicator& world) {
    const auto ranks =
        host_and_device(borrowed(world), staged(borrowed(world), std::make_shared<MaskedMemory>()));
    Values host = {world.rank()};
    OnDevice device(Values{10 * world.rank()});
    auto first = ranks->start_all_reduce(device), second = ranks->start_all_reduce(on_host(host));
    first.wait();
    second.wait();
    EXPECT_EQ(host, Values{3});
    EXPECT_EQ(device.values(), Values{30});
  });
}

TEST(Wrappers, take_what_lies_on_the_device_and_hand_on_what_is_called) {
  const auto device = std::make_shared<Double>(2, Place::kDevice);
  const auto traffic = std::make_shared<Traffic>();
  const auto counted = count_traffic(device, {0, 1}, traffic);
  EXPECT_FALSE(counted->takes(Place::kHost));
  call_all(*counted, Place::kDevice);
  EXPECT_EQ(device->calls, kEveryCall);
  // reduce_scatter, all_gather, both exchanges and send: one int64 each.
  EXPECT_EQ(traffic->calls, 8);
  EXPECT_EQ(traffic->other_nodes.messages, 5);
  EXPECT_EQ(traffic->other_nodes.payload_bytes, 40);
  EXPECT_EQ(traffic->same_node.messages, 0);
}

TEST(Wrappers, checked_ranks_tell_the_place_and_the_kind_of_an_exchange) {
  run_ranks(2, [](Communicator& world) {
    const auto checked = check_calls(
        host_and_device(borrowed(world), staged(borrowed(world), std::make_shared<MaskedMemory>())));
    OnDevice in(Values{world.rank(), 5}), out(2), part(1);
    checked->all_to_all_equal(in, out);
    EXPECT_EQ(out.values()[0], world.rank() == 0 ? 0 : 5);
    checked->reduce_scatter(in, part);
    EXPECT_EQ(part.values(), Values{world.rank() == 0 ? 1 : 10});
    Values host = {1, 2};
    const auto other = world.rank() == 0 ? Buffer(in) : on_host(host);
    try {
      checked->all_reduce(other);
      ADD_FAILURE() << "not noticed";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what())
                    .find("rank 0 called all_reduce (sum) of 2 int64 on the device, rank "
                          "1 called all_reduce (sum) of 2 int64"),
                std::string::npos)
          << error.what();
    }
  });
}

TEST(Groups, of_one_rank_take_the_device_where_the_world_does) {
  run_ranks(2, [](Communicator& world) {
    const auto memory = std::make_shared<MaskedMemory>();
    const std::shared_ptr<Communicator> ranks =
        host_and_device(borrowed(world), staged(borrowed(world), memory));
    const auto groups = make_groups(ranks, {.expert = 2}, [&] { return make_single_with_device(memory); });
    EXPECT_EQ(groups.expert_data->size(), 1);
    OnDevice in(Values{4}), out(1), sum(Values{1});
    groups.expert_data->all_gather(in, out);
    EXPECT_EQ(out.values(), Values{4});
    groups.expert->all_reduce(sum);
    EXPECT_EQ(sum.values(), Values{2});
    Values host = {3};
    groups.expert_data->all_reduce(on_host(host));
    EXPECT_EQ(host, Values{3});
    try {
      make_groups(ranks, {.expert = 2});
      ADD_FAILURE() << "made";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("does not take all that `world` takes"), std::string::npos);
    }
  });
  const auto alone = single_rank([] { return make_single_with_device(std::make_shared<MaskedMemory>()); });
  OnDevice in(Values{8}), out(1);
  alone.world->all_to_all_equal(in, out);
  alone.data->all_reduce(out);
  EXPECT_EQ(out.values(), Values{8});
}

}  // namespace
}  // namespace conclave::comm
