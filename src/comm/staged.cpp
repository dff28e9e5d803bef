// SPDX-License-Identifier: Apache-2.0
#include <mutex>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "conclave/comm/devices.h"
#include "conclave/core/error.h"

namespace conclave::comm {

namespace {

// Memory of the host that stands for a buffer on the device while an operation lasts.
class Stand {
 public:
  Stand(std::shared_ptr<DeviceMemory> memory, ConstBuffer buffer)
      : memory_(std::move(memory)),
        bytes_(static_cast<size_t>(buffer.num_bytes())),
        host_{bytes_.data(), buffer.count, buffer.type} {}
  Buffer host() const { return host_; }
  void fetch(ConstBuffer from) const {
    if (from.count > 0) memory_->to_host(host_.data, from.data, from.num_bytes());
  }
  void bring(Buffer to) const {
    if (to.count > 0) memory_->to_device(to.data, host_.data, to.num_bytes());
  }

 private:
  std::shared_ptr<DeviceMemory> memory_;
  std::vector<std::byte> bytes_;
  Buffer host_;
};
using Stands = std::vector<std::shared_ptr<Stand>>;

// A transport may go on using what it was given after an operation failed: that stays until the process ends.
void keep_for_good(const Stands& stands) {
  static std::mutex mutex;
  static auto& kept = *new Stands;
  const std::lock_guard lock(mutex);
  kept.insert(kept.end(), stands.begin(), stands.end());
}
template <class Run>
void run_with(const Stands& stands, Run run) {
  try {
    run();
  } catch (...) {
    keep_for_good(stands);
    throw;
  }
}

class StagedCommunicator : public Communicator {
 public:
  StagedCommunicator(std::shared_ptr<Communicator> host, std::shared_ptr<DeviceMemory> memory)
      : host_(std::move(host)), memory_(std::move(memory)) {
    CONCLAVE_CHECK(host_->takes(Place::kHost), "staged: `host` takes no buffers on the host");
  }
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  bool takes(Place place) const override { return place == Place::kDevice; }

  void abort(const std::string& reason) override { host_->abort(reason); }
  std::optional<std::string> stopped() const override { return host_->stopped(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return staged(host_->split(color, key), memory_);
  }

 private:
  std::shared_ptr<Stand> stand_for(ConstBuffer buffer) const {
    return std::make_shared<Stand>(memory_, buffer);
  }
  // `start` gets the stands of both and starts the operation. A lone rank gets what it gives.
  template <class Start>
  Work exchange(ConstBuffer in, Buffer out, Start start) const {
    if (size() == 1) {
      CONCLAVE_CHECK(in.count == out.count,
                     fmt::format("a lone rank gives {} elements and takes {}", in.count, out.count));
      if (in.count > 0 && in.data != out.data) memory_->within(out.data, in.data, in.num_bytes());
      return {};
    }
    const auto given = stand_for(in), taken = stand_for(out);
    given->fetch(in);
    const auto work = std::make_shared<Work>(start(given->host(), taken->host()));
    return Work([given, taken, work, out] {
      run_with({given, taken}, [&] { work->wait(); });
      taken->bring(out);
    });
  }

  Work do_all_reduce(Buffer buffer, Reduction reduction) override {
    if (size() == 1) return {};
    const auto stand = stand_for(buffer);
    stand->fetch(buffer);
    const auto work = std::make_shared<Work>(host_->start_all_reduce(stand->host(), reduction));
    return Work([stand, work, buffer] {
      run_with({stand}, [&] { work->wait(); });
      stand->bring(buffer);
    });
  }
  Work do_reduce_scatter(ConstBuffer in, Buffer out, Content content) override {
    return exchange(in, out,
                    [&](Buffer from, Buffer to) { return host_->start_reduce_scatter(from, to, content); });
  }
  Work do_all_gather(ConstBuffer in, Buffer out, Content content) override {
    return exchange(in, out,
                    [&](Buffer from, Buffer to) { return host_->start_all_gather(from, to, content); });
  }
  void do_broadcast(Buffer buffer, int root) override {
    if (size() == 1) return;
    const auto stand = stand_for(buffer);
    if (rank() == root) stand->fetch(buffer);
    run_with({stand}, [&] { host_->broadcast(stand->host(), root); });
    if (rank() != root) stand->bring(buffer);
  }
  Work do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content content) override {
    return exchange(in, out, [&](Buffer from, Buffer to) {
      return host_->start_all_to_all(from, in_counts, to, out_counts, content);
    });
  }
  Work do_all_to_all_equal(ConstBuffer in, Buffer out, Content content) override {
    return exchange(in, out,
                    [&](Buffer from, Buffer to) { return host_->start_all_to_all_equal(from, to, content); });
  }
  void do_send(ConstBuffer in, int to) override {
    const auto stand = stand_for(in);
    stand->fetch(in);
    run_with({stand}, [&] { host_->send(stand->host(), to); });
  }
  void do_receive(Buffer out, int from) override {
    const auto stand = stand_for(out);
    run_with({stand}, [&] { host_->receive(stand->host(), from); });
    stand->bring(out);
  }
  void do_barrier() override { host_->barrier(); }

  std::shared_ptr<Communicator> host_;
  std::shared_ptr<DeviceMemory> memory_;
};

}  // namespace

std::unique_ptr<Communicator> staged(std::shared_ptr<Communicator> host,
                                     std::shared_ptr<DeviceMemory> memory) {
  return std::make_unique<StagedCommunicator>(std::move(host), std::move(memory));
}

}  // namespace conclave::comm
