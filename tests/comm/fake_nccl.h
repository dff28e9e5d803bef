// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "conclave/comm/nccl.h"

namespace conclave::comm {

// A library that moves plain memory, and does what a test tells it to.
class FakeNccl : public NcclApi {
 public:
  // What the ranks of a run have in common: what was sent and not yet received.
  struct World {
    std::mutex mutex;
    std::condition_variable arrived;
    std::map<std::pair<int, int>, std::deque<std::vector<std::byte>>> mail;  // from, to
  };
  FakeNccl(std::shared_ptr<World> world, Communicator& ranks) : world_(std::move(world)), ranks_(ranks) {}

  int loaded_version = 22809;
  std::atomic<int> polls_until_ready{0};  // after every call
  std::atomic<bool> fails_to_start{false};
  std::mutex mutex;
  std::string async_failure;  // under mutex
  std::atomic<int> live{0}, aborted{0}, destroyed{0}, sends{0}, equal_exchanges{0};

  int version() override { return loaded_version; }
  int built_version() override { return 22809; }
  NcclResult unique_id(NcclId& id) override { return (id.fill(7), NcclResult{}); }
  NcclResult init(NcclHandle& comm, int size, const NcclId& id, int rank) override {
    if (id[5] != 7 || size != ranks_.size() || rank != ranks_.rank()) return failed("wrong id, size or rank");
    return made(comm);
  }
  // As the real one, it writes the handle when it is done.
  NcclResult split(NcclHandle, int, int, NcclHandle& comm) override {
    late_ = &comm;
    const auto result = called();
    write_late(result);
    return result;
  }
  NcclResult async_error(NcclHandle comm) override {
    if (!comm) return failed("no handle");
    const std::lock_guard lock(mutex);
    if (!async_failure.empty()) return failed(async_failure);
    const auto result = polls_ > 0 && polls_-- > 0 ? NcclResult{NcclResult::Kind::kInProgress} : NcclResult{};
    write_late(result);
    return result;
  }
  NcclResult finalize(NcclHandle) override { return called(); }
  void destroy(NcclHandle) override { --live, ++destroyed; }
  void abort(NcclHandle) override { --live, ++aborted; }

  NcclResult group_start() override { return (in_group_ = true, NcclResult{}); }
  NcclResult group_end() override {
    in_group_ = false;
    for (const auto& [out, from] : std::exchange(receives_, {})) take(out, from);
    return called();
  }
  NcclResult all_reduce(Buffer buffer, Reduction reduction, NcclHandle, DeviceStream) override {
    if (fails_to_start) return failed("invalid argument");
    return (ranks_.all_reduce(plain(buffer), reduction), called());
  }
  NcclResult reduce_scatter(ConstBuffer in, Buffer out, NcclHandle, DeviceStream) override {
    return (ranks_.reduce_scatter(plain(in), plain(out)), called());
  }
  NcclResult all_gather(ConstBuffer in, Buffer out, NcclHandle, DeviceStream) override {
    return (ranks_.all_gather(plain(in), plain(out)), called());
  }
  NcclResult all_to_all(ConstBuffer in, Buffer out, int size, NcclHandle, DeviceStream) override {
    if (size != ranks_.size()) return failed("wrong size");
    ++equal_exchanges;
    return (ranks_.all_to_all_equal(plain(in), plain(out)), called());
  }
  NcclResult broadcast(Buffer buffer, int root, NcclHandle, DeviceStream) override {
    return (ranks_.broadcast(plain(buffer), root), called());
  }
  NcclResult send(ConstBuffer in, int to, NcclHandle, DeviceStream) override {
    if (in.count == 0) return failed("an empty message");
    ++sends;
    const auto* begin = static_cast<const std::byte*>(in.data);
    const std::lock_guard lock(world_->mutex);
    world_->mail[{ranks_.rank(), to}].emplace_back(begin, begin + in.num_bytes());
    world_->arrived.notify_all();
    return {};
  }
  NcclResult receive(Buffer out, int from, NcclHandle, DeviceStream) override {
    if (in_group_) return (receives_.emplace_back(out, from), NcclResult{});
    return (take(out, from), called());
  }

 private:
  // The memory is the host's, whatever the caller takes it for.
  template <class B>
  static B plain(B buffer) {
    buffer.place = Place::kHost;
    return buffer;
  }
  static NcclResult failed(const std::string& text) { return {NcclResult::Kind::kFailed, text}; }
  NcclResult made(NcclHandle& comm) {
    comm = reinterpret_cast<NcclHandle>(static_cast<uintptr_t>(++live));
    return called();
  }
  void write_late(const NcclResult& result) {
    if (late_ && result.kind == NcclResult::Kind::kOk)
      *std::exchange(late_, nullptr) = reinterpret_cast<NcclHandle>(static_cast<uintptr_t>(++live));
  }
  NcclResult called() {
    const std::lock_guard lock(mutex);
    polls_ = polls_until_ready;
    return {polls_ > 0 ? NcclResult::Kind::kInProgress : NcclResult::Kind::kOk};
  }
  void take(Buffer out, int from) {
    std::unique_lock lock(world_->mutex);
    auto& mail = world_->mail[{from, ranks_.rank()}];
    world_->arrived.wait(lock, [&] { return !mail.empty(); });
    std::memcpy(out.data, mail.front().data(),
                std::min(mail.front().size(), static_cast<size_t>(out.num_bytes())));
    mail.pop_front();
  }

  std::shared_ptr<World> world_;
  Communicator& ranks_;
  int polls_ = 0;
  NcclHandle* late_ = nullptr;
  bool in_group_ = false;
  std::vector<std::pair<Buffer, int>> receives_;
};

// A device whose streams and events are numbers; work ends when `done` says so.
class FakeDevice : public DeviceApi {
 public:
  std::atomic<bool> done{true}, broken{false};
  std::atomic<int> streams{0}, events{0}, waits_of_caller{0};

  DeviceStream current_stream() override { return reinterpret_cast<DeviceStream>(uintptr_t{1}); }
  DeviceStream make_stream() override { return (++streams, reinterpret_cast<DeviceStream>(uintptr_t{2})); }
  void release(DeviceStream) override { --streams; }
  DeviceEvent record(DeviceStream) override {
    return (++events, reinterpret_cast<DeviceEvent>(uintptr_t{3}));
  }
  void wait(DeviceStream stream, DeviceEvent) override { waits_of_caller += stream == current_stream(); }
  bool is_done(DeviceEvent) override {
    if (broken) throw Error("an illegal memory access was encountered");
    return done;
  }
  void release(DeviceEvent) override { --events; }
};

}  // namespace conclave::comm
