// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/gloo.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "conclave/core/error.h"

// The stub headers in gloo_stub/ are true for this version only.
static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11);

namespace conclave::comm {

namespace {

c10::ScalarType scalar_type(DataType type) {
  switch (type) {
    case DataType::kUInt8:
      return c10::ScalarType::Byte;
    case DataType::kInt32:
      return c10::ScalarType::Int;
    case DataType::kInt64:
      return c10::ScalarType::Long;
    case DataType::kFloat32:
      return c10::ScalarType::Float;
    case DataType::kFloat64:
      return c10::ScalarType::Double;
    case DataType::kBFloat16:
      return c10::ScalarType::BFloat16;
  }
  return c10::ScalarType::Undefined;
}

// Gloo takes tensors; an empty one still needs an address.
at::Tensor view(const void* data, int64_t count, DataType type) {
  static char nothing[16];
  return at::from_blob(count > 0 ? const_cast<void*>(data) : nothing, {count}, scalar_type(type));
}
at::Tensor view(ConstBuffer buffer) {
  return view(buffer.data, buffer.count, buffer.type);
}

class GlooCommunicator : public Communicator {
 public:
  GlooCommunicator(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                   std::chrono::milliseconds timeout)
      : store_(std::move(store)), rank_(rank), size_(size), timeout_(timeout) {
    auto options = c10d::ProcessGroupGloo::Options::create_default(timeout);
    gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store_, rank, size, std::move(options));
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::unique_ptr<Communicator> split(int color, int key) override {
    const int32_t mine[2] = {color, key};
    std::vector<int32_t> all(static_cast<size_t>(2 * size_));
    all_gather({mine, 2, DataType::kInt32}, {all.data(), 2 * size_, DataType::kInt32});
    std::vector<std::pair<int, int>> members;  // (key, rank) of this color
    for (int r = 0; r < size_; ++r) {
      const auto at = static_cast<size_t>(2 * r);
      if (all[at] == color) members.emplace_back(all[at + 1], r);
    }
    std::sort(members.begin(), members.end());
    const auto place = std::find(members.begin(), members.end(), std::pair(key, rank_)) - members.begin();
    const auto prefix = fmt::format("split{}/{}", num_splits_++, color);
    return std::make_unique<GlooCommunicator>(c10::make_intrusive<c10d::PrefixStore>(prefix, store_),
                                              static_cast<int>(place), static_cast<int>(members.size()),
                                              timeout_);
  }

 private:
  // Starts an operation and waits for it.
  template <class Start>
  void run(const char* what, Start start) {
    ++sequence_;
    try {
      start()->wait();
    } catch (const std::exception& error) {
      throw Error(fmt::format("rank {} of {}: {} (operation {}) failed: {}", rank_, size_, what, sequence_,
                              first_line(error.what())),
                  Error::Kind::kCommunication);
    }
  }
  static std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

  void do_all_reduce(Buffer buffer, Reduction reduction) override {
    std::vector<at::Tensor> tensors = {view(buffer)};
    c10d::AllreduceOptions options;
    options.reduceOp = reduction == Reduction::kSum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    if (buffer.count > 0) run("all_reduce", [&] { return gloo_->allreduce(tensors, options); });
  }
  void do_all_gather(ConstBuffer in, Buffer out) override {
    auto to = view(out), from = view(in);
    if (in.count > 0)
      run("all_gather", [&] { return gloo_->_allgather_base(to, from, c10d::AllgatherOptions()); });
  }
  void do_broadcast(Buffer buffer, int root) override {
    std::vector<at::Tensor> tensors = {view(buffer)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    if (buffer.count > 0) run("broadcast", [&] { return gloo_->broadcast(tensors, options); });
  }
  void do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content) override {
    auto to = view(out), from = view(in);
    // Taken by reference and emptied by the call.
    std::vector<int64_t> out_splits(out_counts.begin(), out_counts.end()),
        in_splits(in_counts.begin(), in_counts.end());
    run("all_to_all",
        [&] { return gloo_->alltoall_base(to, from, out_splits, in_splits, c10d::AllToAllOptions()); });
  }
  void do_barrier() override {
    run("barrier", [&] { return gloo_->barrier(c10d::BarrierOptions()); });
  }

  c10::intrusive_ptr<c10d::Store> store_;
  int rank_, size_;
  std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<c10d::Backend> gloo_;
  int64_t sequence_ = 0, num_splits_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> connect_gloo(const Rendezvous& r) {
  CONCLAVE_CHECK(r.size > 0 && r.rank >= 0 && r.rank < r.size, fmt::format("rank {} of {}", r.rank, r.size));
  try {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(r.master_port);
    options.isServer = r.rank == 0 && !r.store_is_elsewhere;
    options.numWorkers = r.size;
    options.waitWorkers = false;  // Gloo's own meeting waits, and names what is missing
    options.timeout = r.timeout;
    options.multiTenant = true;
    if (options.isServer && r.listening_socket >= 0) options.masterListenFd = r.listening_socket;
    auto tcp = c10::make_intrusive<c10d::TCPStore>(r.master_address, options);
    return std::make_unique<GlooCommunicator>(
        c10::make_intrusive<c10d::PrefixStore>(r.prefix, std::move(tcp)), r.rank, r.size, r.timeout);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    const std::string text = error.what();
    throw Error(
        fmt::format(
            "rank {} of {} did not meet the others at {}:{}: {}. Are all {} ranks started, and is the "
            "port free and reachable?",
            r.rank, r.size, r.master_address, r.master_port, text.substr(0, text.find('\n')), r.size),
        Error::Kind::kCommunication);
  }
}

}  // namespace conclave::comm
