// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/nccl.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "nccl_watch.h"

namespace conclave::comm {

namespace {

using Clock = std::chrono::steady_clock;
using Kind = NcclResult::Kind;

std::string described(const char* what, ConstBuffer buffer) {
  return fmt::format("{} of {} {}", what, buffer.count, name_of(buffer.type));
}

class NcclCommunicator : public Communicator {
 public:
  // `connect(handle)` starts to connect, and `state(handle)` says how far that is.
  template <class Connect, class State>
  NcclCommunicator(std::shared_ptr<NcclWatch> watch, std::shared_ptr<Communicator> host,
                   const std::string& name, Connect connect, State state)
      : watch_(std::move(watch)), host_(std::move(host)), member_(watch_->add(name)) {
    stream_ = watch_->device().make_stream();
    auto& made = member_->connecting;
    try {
      settle(
          "connect", [&] { return connect(made); }, [&] { return state(made); });
      const std::lock_guard lock(member_->use);
      watch_->check(at_rank("connect"));
      member_->handle = made;
    } catch (...) {
      if (made) watch_->nccl().abort(made);
      watch_->device().release(stream_);
      throw;
    }
  }
  ~NcclCommunicator() override {
    try {
      end();
    } catch (const std::exception&) {  // the run is over anyway
    }
    watch_->device().release(stream_);
  }
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  bool takes(Place place) const override { return place == Place::kDevice; }

  void abort(const std::string& reason) override { watch_->fail(reason); }
  std::optional<std::string> stopped() const override { return watch_->cause(); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    auto& nccl = watch_->nccl();
    const auto name = fmt::format("{}/split{}", member_->name, num_splits_++);
    const auto with_handle = [&](auto use) {
      const std::lock_guard lock(member_->use);
      watch_->check(at_rank("split"));
      return use(member_->handle);
    };
    return std::make_unique<NcclCommunicator>(
        watch_, host_->split(color, key), name,
        [&](NcclHandle& made) {
          return with_handle([&](NcclHandle from) { return nccl.split(from, color, key, made); });
        },
        [&](NcclHandle) { return with_handle([&](NcclHandle from) { return nccl.async_error(from); }); });
  }

 private:
  // One call of NCCL, and what it still does for it afterwards.
  template <class Begin, class State>
  void settle(const std::string& what, Begin begin, State state) {
    const auto end = Clock::now() + watch_->options().timeout;
    watch_->check(at_rank(what));
    NcclResult result = begin();
    auto pause = std::chrono::microseconds(20);
    while (result.kind == Kind::kInProgress && !watch_->cause()) {
      if (Clock::now() > end) {
        watch_->fail(fmt::format("{} ({}) took longer than {} s: are all {} ranks there?", what,
                                 member_->name,
                                 std::chrono::duration<double>(watch_->options().timeout).count(), size()));
        break;
      }
      std::this_thread::sleep_for(pause);
      pause = std::min<std::chrono::microseconds>(2 * pause, std::chrono::milliseconds(5));
      result = state();
    }
    if (result.kind == Kind::kFailed) watch_->fail(fmt::format("{}: NCCL: {}", what, result.text));
    watch_->check(at_rank(what));
  }
  // A call with our handle, which is gone once the run is over.
  template <class Begin>
  void call(const std::string& what, Begin begin) {
    const auto locked = [&](auto use) {
      const std::lock_guard lock(member_->use);
      watch_->check(at_rank(what));
      return use();
    };
    settle(
        what, [&] { return locked(begin); },
        [&] { return locked([&] { return watch_->nccl().async_error(member_->handle); }); });
  }

  // Puts `begin` into our stream, behind what the caller's holds.
  template <class Begin>
  Work start(const std::string& what, Begin begin) {
    auto& device = watch_->device();
    watch_->check(at_rank(what));
    const auto ready = owned(device.record(device.current_stream()));
    device.wait(stream_, ready.get());
    call(what, begin);
    const auto done = owned(device.record(stream_));
    {
      const std::lock_guard lock(member_->operations_mutex);
      member_->operations.push_back({++member_->sequence, what, done, Clock::now()});
    }
    return Work([watch = watch_, done, place = at_rank(what)] {
      watch->check(place);
      watch->device().wait(watch->device().current_stream(), done.get());
    });
  }
  std::string at_rank(const std::string& what) const {
    return fmt::format("rank {} of {}: {}", rank(), size(), what);
  }
  std::shared_ptr<DeviceEventTag> owned(DeviceEvent event) {
    // Holds the device and not the watch, whose thread may be the last to let an event go.
    return {event, [device = watch_->shared_device()](DeviceEvent e) { device->release(e); }};
  }

  void end() {
    if (watch_->cause()) return;
    call("the end", [&] { return watch_->nccl().finalize(member_->handle); });
    const std::lock_guard lock(member_->use);
    if (member_->handle) watch_->nccl().destroy(std::exchange(member_->handle, nullptr));
  }

  Work do_all_reduce(Buffer buffer, Reduction reduction) override {
    if (buffer.count == 0) return {};
    return start(described("all_reduce", buffer),
                 [&] { return watch_->nccl().all_reduce(buffer, reduction, member_->handle, stream_); });
  }
  Work do_reduce_scatter(ConstBuffer in, Buffer out, Content) override {
    if (out.count == 0) return {};
    return start(described("reduce_scatter", in),
                 [&] { return watch_->nccl().reduce_scatter(in, out, member_->handle, stream_); });
  }
  Work do_all_gather(ConstBuffer in, Buffer out, Content) override {
    if (in.count == 0) return {};
    return start(described("all_gather", in),
                 [&] { return watch_->nccl().all_gather(in, out, member_->handle, stream_); });
  }
  void do_broadcast(Buffer buffer, int root) override {
    if (buffer.count == 0) return;
    start(described("broadcast", buffer), [&] {
      return watch_->nccl().broadcast(buffer, root, member_->handle, stream_);
    }).wait();
  }
  // A send and a receive for every rank with which something is exchanged; both sides leave out what is
  // empty.
  Work do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content) override {
    auto& nccl = watch_->nccl();
    return start(described("all_to_all", in), [&] {
      NcclResult first = nccl.group_start();
      const auto add = [&](NcclResult result) {
        if (first.kind != Kind::kFailed && result.kind != Kind::kOk) first = std::move(result);
      };
      const auto* from = static_cast<const std::byte*>(in.data);
      auto* to = static_cast<std::byte*>(out.data);
      for (int r = 0; r < size(); ++r) {
        const ConstBuffer part{from, in_counts[static_cast<size_t>(r)], in.type, in.place};
        const Buffer place{to, out_counts[static_cast<size_t>(r)], out.type, out.place};
        if (part.count > 0) add(nccl.send(part, r, member_->handle, stream_));
        if (place.count > 0) add(nccl.receive(place, r, member_->handle, stream_));
        from += part.num_bytes();
        to += place.num_bytes();
      }
      add(nccl.group_end());
      return first;
    });
  }
  Work do_all_to_all_equal(ConstBuffer in, Buffer out, Content) override {
    if (in.count == 0) return {};
    return start(described("all_to_all in equal parts", in),
                 [&] { return watch_->nccl().all_to_all(in, out, size(), member_->handle, stream_); });
  }
  void do_send(ConstBuffer in, int to) override {
    if (in.count == 0) return;
    start(described("send", in), [&] {
      return watch_->nccl().send(in, to, member_->handle, stream_);
    }).wait();
  }
  void do_receive(Buffer out, int from) override {
    if (out.count == 0) return;
    start(described("receive", out), [&] {
      return watch_->nccl().receive(out, from, member_->handle, stream_);
    }).wait();
  }
  void do_barrier() override { host_->barrier(); }

  std::shared_ptr<NcclWatch> watch_;
  std::shared_ptr<Communicator> host_;
  std::shared_ptr<NcclMember> member_;
  DeviceStream stream_ = nullptr;
  int num_splits_ = 0;
};

// The library that is loaded may be another than the one whose header was read; they agree within a minor
// version.
void check_version(NcclApi& nccl) {
  const int loaded = nccl.version(), built = nccl.built_version();
  const auto text = [](int v) { return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100); };
  CONCLAVE_CHECK(
      loaded / 100 == built / 100,
      fmt::format("NCCL {} is loaded, but this program was built with {}: put the right libnccl.so.2 first "
                  "on LD_LIBRARY_PATH, or build again",
                  text(loaded), text(built)));
}

}  // namespace

std::unique_ptr<Communicator> connect_nccl(std::shared_ptr<NcclApi> nccl, std::shared_ptr<DeviceApi> device,
                                           std::shared_ptr<Communicator> host, NcclOptions options) {
  check_version(*nccl);
  NcclId id = {};
  NcclResult made;
  if (host->rank() == 0) made = nccl->unique_id(id);
  if (made.kind == Kind::kFailed) {
    host->abort(made.text);
    throw Error(fmt::format("NCCL gives no id: {}", made.text), Error::Kind::kCommunication);
  }
  host->broadcast({id.data(), static_cast<int64_t>(id.size()), DataType::kUInt8}, 0);
  options.stopped_elsewhere = [host] { return host->stopped(); };
  const auto tell = std::move(options.on_failure);
  options.on_failure = [host, tell](const std::string& cause, const std::string& record) {
    host->abort(cause);
    if (tell) tell(cause, record);
  };
  auto watch = std::make_shared<NcclWatch>(nccl, std::move(device), std::move(options));
  return std::make_unique<NcclCommunicator>(
      std::move(watch), host, "world",
      [&](NcclHandle& made) { return nccl->init(made, host->size(), id, host->rank()); },
      [&](NcclHandle made) { return nccl->async_error(made); });
}

}  // namespace conclave::comm
