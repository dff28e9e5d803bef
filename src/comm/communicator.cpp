// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/communicator.h"

#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "reduce.h"

namespace conclave::comm {

int64_t size_of(DataType type) {
  switch (type) {
    case DataType::kUInt8:
      return 1;
    case DataType::kBFloat16:
      return 2;
    case DataType::kInt32:
    case DataType::kFloat32:
      return 4;
    case DataType::kInt64:
    case DataType::kFloat64:
      return 8;
  }
  return 0;
}

const char* name_of(DataType type) {
  constexpr const char* kNames[] = {"uint8", "int32", "int64", "fp32", "fp64", "bf16"};
  return kNames[static_cast<size_t>(type)];
}

Work::Work(std::function<void()> finish) : finish_(std::move(finish)) {}

Work::Work(Work&& other) noexcept : finish_(std::exchange(other.finish_, {})) {}

Work& Work::operator=(Work&& other) noexcept {
  Work old(std::move(*this));  // waited for when it goes
  finish_ = std::exchange(other.finish_, {});
  return *this;
}

Work::~Work() {
  try {
    wait();
  } catch (const std::exception&) {  // whoever wants to know waits
  }
}

void Work::wait() {
  if (const auto finish = std::exchange(finish_, {})) finish();
}

// Places and sizes are validated before anything is sent: a wrong one would hang or overwrite another rank's
// memory.

namespace {

void check_type(const char* what, DataType type) {
  CONCLAVE_CHECK(type != DataType::kBFloat16 && type != DataType::kUInt8,
                 fmt::format("{} of {}: widen to int32, int64, fp32 or fp64 first", what, name_of(type)));
}

void check_places(const char* what, Place in, Place out, const Communicator& ranks) {
  const auto text = [](Place place) { return place == Place::kHost ? "host" : "device"; };
  CONCLAVE_CHECK(in == out, fmt::format("{}: one buffer lies on the {}, the other on the {}", what, text(in),
                                        text(out)));
  CONCLAVE_CHECK(
      ranks.takes(in),
      fmt::format("{}: the buffer lies on the {}, and this communicator takes those on the {} only", what,
                  text(in), text(in == Place::kHost ? Place::kDevice : Place::kHost)));
}

void check_peer(const char* what, int peer, const Communicator& ranks) {
  CONCLAVE_CHECK(peer >= 0 && peer < ranks.size() && peer != ranks.rank(),
                 fmt::format("{} rank {}: this is rank {} of {}", what, peer, ranks.rank(), ranks.size()));
}

}  // namespace

void Communicator::all_reduce(Buffer buffer, Reduction reduction) {
  start_all_reduce(buffer, reduction).wait();
}
Work Communicator::start_all_reduce(Buffer buffer, Reduction reduction) {
  check_places("all_reduce", buffer.place, buffer.place, *this);
  check_type("all_reduce", buffer.type);
  return do_all_reduce(buffer, reduction);
}

void Communicator::reduce_scatter(ConstBuffer in, Buffer out, Content content) {
  start_reduce_scatter(in, out, content).wait();
}
Work Communicator::start_reduce_scatter(ConstBuffer in, Buffer out, Content content) {
  check_places("reduce_scatter", in.place, out.place, *this);
  check_type("reduce_scatter", in.type);
  CONCLAVE_CHECK(in.type == out.type && in.count == out.count * size(),
                 fmt::format("reduce_scatter: {} {} elements into {} {}, not {} times as few", in.count,
                             name_of(in.type), out.count, name_of(out.type), size()));
  return do_reduce_scatter(in, out, content);
}
// Each rank's parts are brought to it and added there: (size - 1) / size of `in` leaves a rank, as with a
// ring, and the order of the sum is the same whatever moves the parts.
Work Communicator::do_reduce_scatter(ConstBuffer in, Buffer out, Content content) {
  const auto parts = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(in.num_bytes()));
  const auto exchange =
      std::make_shared<Work>(start_all_to_all_equal(in, {parts->data(), in.count, in.type}, content));
  return Work([parts, exchange, out, num_parts = static_cast<size_t>(size())] {
    exchange->wait();
    std::vector<const void*> places;
    for (size_t r = 0; r < num_parts; ++r)
      places.push_back(parts->data() + r * static_cast<size_t>(out.num_bytes()));
    reduce_in_order(places, Reduction::kSum, out);
  });
}

void Communicator::all_gather(ConstBuffer in, Buffer out, Content content) {
  start_all_gather(in, out, content).wait();
}
Work Communicator::start_all_gather(ConstBuffer in, Buffer out, Content content) {
  check_places("all_gather", in.place, out.place, *this);
  CONCLAVE_CHECK(in.type == out.type && out.count == in.count * size(),
                 fmt::format("all_gather: {} {} elements into {} {}, not {} times as many", in.count,
                             name_of(in.type), out.count, name_of(out.type), size()));
  return do_all_gather(in, out, content);
}

void Communicator::broadcast(Buffer buffer, int root) {
  check_places("broadcast", buffer.place, buffer.place, *this);
  CONCLAVE_CHECK(root >= 0 && root < size(), fmt::format("broadcast from rank {} of {}", root, size()));
  do_broadcast(buffer, root);
}

void Communicator::all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                              std::span<const int64_t> out_counts, Content content) {
  start_all_to_all(in, in_counts, out, out_counts, content).wait();
}
Work Communicator::start_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                                    std::span<const int64_t> out_counts, Content content) {
  const auto check = [&](const char* what, int64_t count, std::span<const int64_t> counts) {
    int64_t sum = 0;
    for (const int64_t c : counts) {
      CONCLAVE_CHECK(c >= 0, fmt::format("all_to_all: a count of {} is {}", what, c));
      sum += c;
    }
    CONCLAVE_CHECK(counts.size() == static_cast<size_t>(size()) && sum == count,
                   fmt::format("all_to_all: {} counts of {} add up to {}; there are {} ranks and {} elements",
                               counts.size(), what, sum, size(), count));
  };
  check_places("all_to_all", in.place, out.place, *this);
  CONCLAVE_CHECK(in.type == out.type,
                 fmt::format("all_to_all: {} into {}", name_of(in.type), name_of(out.type)));
  check("in", in.count, in_counts);
  check("out", out.count, out_counts);
  return do_all_to_all(in, in_counts, out, out_counts, content);
}

void Communicator::all_to_all_equal(ConstBuffer in, Buffer out, Content content) {
  start_all_to_all_equal(in, out, content).wait();
}
Work Communicator::start_all_to_all_equal(ConstBuffer in, Buffer out, Content content) {
  check_places("all_to_all", in.place, out.place, *this);
  CONCLAVE_CHECK(in.type == out.type && in.count == out.count && in.count % size() == 0,
                 fmt::format("all_to_all in equal parts: {} {} elements into {} {} on {} ranks", in.count,
                             name_of(in.type), out.count, name_of(out.type), size()));
  return do_all_to_all_equal(in, out, content);
}
Work Communicator::do_all_to_all_equal(ConstBuffer in, Buffer out, Content content) {
  const std::vector<int64_t> counts(static_cast<size_t>(size()), in.count / size());
  return do_all_to_all(in, counts, out, counts, content);
}

void Communicator::send(ConstBuffer in, int to) {
  check_places("send", in.place, in.place, *this);
  check_peer("send to", to, *this);
  do_send(in, to);
}

void Communicator::receive(Buffer out, int from) {
  check_places("receive", out.place, out.place, *this);
  check_peer("receive from", from, *this);
  do_receive(out, from);
}

void Communicator::barrier() {
  do_barrier();
}

namespace {

class SingleCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void abort(const std::string&) override {}
  std::unique_ptr<Communicator> split(int, int) override { return make_single_communicator(); }

 private:
  static void copy(ConstBuffer in, Buffer out) {
    if (in.count > 0 && in.data != out.data)
      std::memmove(out.data, in.data, static_cast<size_t>(in.num_bytes()));
  }
  Work do_all_reduce(Buffer, Reduction) override { return {}; }
  Work do_all_gather(ConstBuffer in, Buffer out, Content) override {
    copy(in, out);
    return {};
  }
  void do_broadcast(Buffer, int) override {}
  Work do_all_to_all(ConstBuffer in, std::span<const int64_t>, Buffer out, std::span<const int64_t>,
                     Content) override {
    CONCLAVE_CHECK(in.count == out.count, "all_to_all: one rank receives what it sends");
    copy(in, out);
    return {};
  }
  void do_send(ConstBuffer, int) override {}  // there is no other rank: refused before
  void do_receive(Buffer, int) override {}
  void do_barrier() override {}
};

}  // namespace

std::unique_ptr<Communicator> make_single_communicator() {
  return std::make_unique<SingleCommunicator>();
}

}  // namespace conclave::comm
