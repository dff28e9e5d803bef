// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/communicator.h"

#include <cstring>
#include <numeric>

#include <fmt/format.h>

#include "conclave/core/error.h"

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

// Sizes are validated before anything is sent: a wrong one would hang or overwrite another rank's memory.

void Communicator::all_reduce(Buffer buffer, Reduction reduction) {
  CONCLAVE_CHECK(
      buffer.type != DataType::kBFloat16 && buffer.type != DataType::kUInt8,
      fmt::format("all_reduce of {}: widen to int32, int64, fp32 or fp64 first", name_of(buffer.type)));
  do_all_reduce(buffer, reduction);
}

void Communicator::all_gather(ConstBuffer in, Buffer out) {
  CONCLAVE_CHECK(in.type == out.type && out.count == in.count * size(),
                 fmt::format("all_gather: {} {} elements into {} {}, not {} times as many", in.count,
                             name_of(in.type), out.count, name_of(out.type), size()));
  do_all_gather(in, out);
}

void Communicator::broadcast(Buffer buffer, int root) {
  CONCLAVE_CHECK(root >= 0 && root < size(), fmt::format("broadcast from rank {} of {}", root, size()));
  do_broadcast(buffer, root);
}

void Communicator::all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
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
  CONCLAVE_CHECK(in.type == out.type,
                 fmt::format("all_to_all: {} into {}", name_of(in.type), name_of(out.type)));
  check("in", in.count, in_counts);
  check("out", out.count, out_counts);
  do_all_to_all(in, in_counts, out, out_counts, content);
}

void Communicator::barrier() {
  do_barrier();
}

namespace {

class SingleCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Communicator> split(int, int) override { return make_single_communicator(); }

 private:
  static void copy(ConstBuffer in, Buffer out) {
    if (in.count > 0 && in.data != out.data)
      std::memmove(out.data, in.data, static_cast<size_t>(in.num_bytes()));
  }
  void do_all_reduce(Buffer, Reduction) override {}
  void do_all_gather(ConstBuffer in, Buffer out) override { copy(in, out); }
  void do_broadcast(Buffer, int) override {}
  void do_all_to_all(ConstBuffer in, std::span<const int64_t>, Buffer out, std::span<const int64_t>,
                     Content) override {
    CONCLAVE_CHECK(in.count == out.count, "all_to_all: one rank receives what it sends");
    copy(in, out);
  }
  void do_barrier() override {}
};

}  // namespace

std::unique_ptr<Communicator> make_single_communicator() {
  return std::make_unique<SingleCommunicator>();
}

}  // namespace conclave::comm
