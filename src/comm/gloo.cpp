// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/gloo.h"

#include <algorithm>
#include <cstdlib>
#include <future>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "conclave/core/error.h"
#include "watch.h"

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

std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

// An operation that waits this long looks whether the run was stopped.
constexpr std::chrono::milliseconds kPatience{500};
// Until a rank whose watch does not answer counts as gone.
constexpr std::chrono::milliseconds kGrace{3000};

class GlooCommunicator : public Communicator {
 public:
  GlooCommunicator(c10::intrusive_ptr<c10d::Store> store, std::shared_ptr<Watch> watch, bool keeps_store,
                   int rank, int size, std::chrono::milliseconds timeout)
      : store_(std::move(store)),
        watch_(std::move(watch)),
        keeps_store_(keeps_store),
        rank_(rank),
        size_(size),
        timeout_(timeout) {
    auto options = c10d::ProcessGroupGloo::Options::create_default(timeout);
    gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store_, rank, size, std::move(options));
  }
  // Gloo ends no operation before its time, and its end waits for all of them. What was given up stays as it
  // is until the process ends, which is soon.
  ~GlooCommunicator() override {
    if (watch_->gave_up()) (void)gloo_.release();
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void abort(const std::string& reason) override {
    const auto word = fmt::format("rank {} gave up: {}", watch_->rank(), reason);
    watch_->stop(word);
    if (watch_->cause()) return;
    if (keeps_store_) watch_->missing(3 * kPatience);  // returns when all have heard it
    watch_->set_cause(word);
  }

  std::optional<std::string> stopped() const override { return watch_->stopped(); }

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
    return std::make_unique<GlooCommunicator>(c10::make_intrusive<c10d::PrefixStore>(prefix, store_), watch_,
                                              keeps_store_, static_cast<int>(place),
                                              static_cast<int>(members.size()), timeout_);
  }

 private:
  // Starts a collective; `tensors` are the views that it works on. Once the run is over for this rank, every
  // operation fails at once, for the same cause.
  template <class Start>
  Work start(const char* what, std::vector<at::Tensor> tensors, Start begin) {
    const int64_t sequence = ++sequence_;
    if (watch_->cause()) fail(what, sequence, "");
    c10::intrusive_ptr<c10d::Work> work;
    try {
      work = begin(tensors);
    } catch (const std::exception& error) {
      fail(what, sequence, first_line(error));
    }
    return Work([this, what, sequence, work, tensors = std::move(tensors)] { finish(what, sequence, work); });
  }
  void finish(const char* what, int64_t sequence, const c10::intrusive_ptr<c10d::Work>& work) {
    while (!watch_->cause()) {
      try {
        work->wait(kPatience);
        return;
      } catch (const std::exception&) {  // of the operation, or of this wait
      }
      if (work->isCompleted()) {
        try {
          work->wait();
          return;
        } catch (const std::exception& error) {
          fail(what, sequence, first_line(error));
        }
      }
      if (const auto word = watch_->stopped()) fail(what, sequence, *word);
      if (watch_->store_is_gone()) fail(what, sequence, "nobody could tell whether the others go on");
    }
    fail(what, sequence, "");
  }
  // Between two ranks; a wait in parts would break the connection.
  template <class Begin>
  void run(const char* what, std::vector<at::Tensor> tensors, Begin begin) {
    const int64_t sequence = ++sequence_;
    try {
      begin(tensors)->wait();
    } catch (const std::exception& error) {
      fail(what, sequence, first_line(error));
    }
  }
  [[noreturn]] void fail(const char* what, int64_t sequence, const std::string& text) {
    if (!watch_->cause()) watch_->set_cause(find_cause(text));
    throw Error(fmt::format("rank {} of {}: {} (operation {}) failed: {}", rank_, size_, what, sequence,
                            *watch_->cause()),
                Error::Kind::kCommunication);
  }
  // All ranks hear of it, so that none waits for this one, and those that do not answer are the cause.
  std::string find_cause(const std::string& text) {
    watch_->stop(text);
    // Who keeps the store goes last: the others need it to find out the same, and notice a little later.
    const auto others_know = std::chrono::steady_clock::now() + kGrace + 3 * kPatience;
    std::string cause = watch_->stopped().value_or(text);
    if (const auto missing = watch_->missing(kGrace); !missing.empty()) {
      cause = fmt::format("rank {} of the run does not answer: killed, frozen or cut off ({})",
                          fmt::join(missing, ", "), cause);
    } else if (watch_->store_is_gone()) {
      cause = fmt::format("whoever keeps the store, rank 0 or the launcher, is gone ({})", cause);
    }
    if (keeps_store_) std::this_thread::sleep_until(others_know);
    return cause;
  }

  Work do_all_reduce(Buffer buffer, Reduction reduction) override {
    c10d::AllreduceOptions options;
    options.reduceOp = reduction == Reduction::kSum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    if (buffer.count == 0) return {};
    return start("all_reduce", {view(buffer)},
                 [&](auto& tensors) { return gloo_->allreduce(tensors, options); });
  }
  Work do_all_gather(ConstBuffer in, Buffer out, Content) override {
    if (in.count == 0) return {};
    return start("all_gather", {view(out), view(in)}, [&](auto& tensors) {
      return gloo_->_allgather_base(tensors[0], tensors[1], c10d::AllgatherOptions());
    });
  }
  void do_broadcast(Buffer buffer, int root) override {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    if (buffer.count == 0) return;
    start("broadcast", {view(buffer)}, [&](auto& tensors) {
      return gloo_->broadcast(tensors, options);
    }).wait();
  }
  Work do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content) override {
    // Taken by reference and emptied by the call.
    std::vector<int64_t> out_splits(out_counts.begin(), out_counts.end()),
        in_splits(in_counts.begin(), in_counts.end());
    return start("all_to_all", {view(out), view(in)}, [&](auto& tensors) {
      return gloo_->alltoall_base(tensors[0], tensors[1], out_splits, in_splits, c10d::AllToAllOptions());
    });
  }
  void do_send(ConstBuffer in, int to) override {
    if (in.count == 0) return;
    run("send", {view(in)}, [&](auto& tensors) { return gloo_->send(tensors, to, 0); });
  }
  void do_receive(Buffer out, int from) override {
    if (out.count == 0) return;
    run("receive", {view(out)}, [&](auto& tensors) { return gloo_->recv(tensors, from, 0); });
  }
  void do_barrier() override {
    start("barrier", {}, [&](auto&) { return gloo_->barrier(c10d::BarrierOptions()); }).wait();
  }

  c10::intrusive_ptr<c10d::Store> store_;
  std::shared_ptr<Watch> watch_;
  bool keeps_store_;  // this process does
  int rank_, size_;
  std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<c10d::Backend> gloo_;
  int64_t sequence_ = 0, num_splits_ = 0;
};

c10::intrusive_ptr<c10d::Store> open_store(const Rendezvous& r, bool keep) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(r.master_port);
  options.isServer = keep;
  options.numWorkers = r.size;
  options.waitWorkers = false;  // the ranks are waited for below, by name
  options.timeout = r.timeout;
  options.multiTenant = true;
  if (keep && r.listening_socket >= 0) options.masterListenFd = r.listening_socket;
  return c10::make_intrusive<c10d::PrefixStore>(
      r.prefix, c10::make_intrusive<c10d::TCPStore>(r.master_address, options));
}

// A program that listens at the port and never answers would keep us for ever: torch sets no limit there.
c10::intrusive_ptr<c10d::Store> open_store_in_time(const Rendezvous& r, bool keep) {
  const auto store = std::make_shared<std::promise<c10::intrusive_ptr<c10d::Store>>>();
  auto opened = store->get_future();
  std::thread([store, r, keep] {
    try {
      store->set_value(open_store(r, keep));
    } catch (...) {
      store->set_exception(std::current_exception());
    }
  }).detach();
  if (opened.wait_for(r.timeout + std::chrono::seconds(2)) != std::future_status::ready)
    throw std::runtime_error("what listens there does not answer as a store");
  return opened.get();
}

// Returns when all ranks have come to the store.
void meet(c10d::Store& store, const Rendezvous& r) {
  const auto key = [](int rank) { return fmt::format("came/{}", rank); };
  store.set(key(r.rank), std::string("here"));
  store.add("came", 1);
  const auto end = std::chrono::steady_clock::now() + r.timeout;
  while (store.add("came", 0) < r.size) {
    if (std::chrono::steady_clock::now() > end) {
      std::vector<int> missing;
      for (int other = 0; other < r.size; ++other) {
        if (!store.check({key(other)})) missing.push_back(other);
      }
      throw Error(
          fmt::format("rank {} of {} waited {} s at {}:{}, and rank {} did not come. Are all {} ranks "
                      "started, with the same MASTER_ADDR and MASTER_PORT?",
                      r.rank, r.size, std::chrono::duration<double>(r.timeout).count(), r.master_address,
                      r.master_port, fmt::join(missing, ", "), r.size),
          Error::Kind::kCommunication);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace

std::unique_ptr<Communicator> connect_gloo(const Rendezvous& r) {
  CONCLAVE_CHECK(r.size > 0 && r.rank >= 0 && r.rank < r.size, fmt::format("rank {} of {}", r.rank, r.size));
  setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/0);
  try {
    const bool keeps_store = r.rank == 0 && !r.store_is_elsewhere;
    const auto store = open_store_in_time(r, keeps_store);
    meet(*store, r);
    auto watch = std::make_shared<Watch>(open_store(r, false), r.rank, r.size);
    return std::make_unique<GlooCommunicator>(store, std::move(watch), keeps_store, r.rank, r.size,
                                              r.timeout);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(
        fmt::format(
            "rank {} of {} did not meet the others at {}:{}: {}. Are all {} ranks started, and is the "
            "port free and reachable?",
            r.rank, r.size, r.master_address, r.master_port, first_line(error), r.size),
        Error::Kind::kCommunication);
  }
}

}  // namespace conclave::comm
