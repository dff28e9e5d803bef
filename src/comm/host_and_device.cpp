// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include <fmt/format.h>

#include "conclave/comm/devices.h"
#include "conclave/core/error.h"

namespace conclave::comm {

namespace {

class HostAndDevice : public Communicator {
 public:
  HostAndDevice(std::shared_ptr<Communicator> host, std::shared_ptr<Communicator> device)
      : host_(std::move(host)), device_(std::move(device)) {
    CONCLAVE_CHECK(host_->rank() == device_->rank() && host_->size() == device_->size(),
                   fmt::format("host_and_device: rank {} of {} on the host, {} of {} on the device",
                               host_->rank(), host_->size(), device_->rank(), device_->size()));
    CONCLAVE_CHECK(host_->takes(Place::kHost), "host_and_device: `host` takes no buffers on the host");
    CONCLAVE_CHECK(device_->takes(Place::kDevice), "host_and_device: `device` takes none on the device");
  }
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  bool takes(Place) const override { return true; }

  void abort(const std::string& reason) override {
    host_->abort(reason);
    device_->abort(reason);
  }
  std::optional<std::string> stopped() const override {
    const auto reason = host_->stopped();
    return reason ? reason : device_->stopped();
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    auto host = host_->split(color, key);  // the same order on all ranks
    return host_and_device(std::move(host), device_->split(color, key));
  }

 private:
  Communicator& of(ConstBuffer buffer) const { return buffer.place == Place::kHost ? *host_ : *device_; }

  Work do_all_reduce(Buffer buffer, Reduction reduction) override {
    return of(buffer).start_all_reduce(buffer, reduction);
  }
  Work do_reduce_scatter(ConstBuffer in, Buffer out, Content content) override {
    return of(in).start_reduce_scatter(in, out, content);
  }
  Work do_all_gather(ConstBuffer in, Buffer out, Content content) override {
    return of(in).start_all_gather(in, out, content);
  }
  void do_broadcast(Buffer buffer, int root) override { of(buffer).broadcast(buffer, root); }
  Work do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content content) override {
    return of(in).start_all_to_all(in, in_counts, out, out_counts, content);
  }
  Work do_all_to_all_equal(ConstBuffer in, Buffer out, Content content) override {
    return of(in).start_all_to_all_equal(in, out, content);
  }
  void do_send(ConstBuffer in, int to) override { of(in).send(in, to); }
  void do_receive(Buffer out, int from) override { of(out).receive(out, from); }
  void do_barrier() override { host_->barrier(); }

  std::shared_ptr<Communicator> host_, device_;
};

}  // namespace

std::unique_ptr<Communicator> host_and_device(std::shared_ptr<Communicator> host,
                                              std::shared_ptr<Communicator> device) {
  return std::make_unique<HostAndDevice>(std::move(host), std::move(device));
}

std::unique_ptr<Communicator> make_single_with_device(std::shared_ptr<DeviceMemory> memory) {
  return host_and_device(make_single_communicator(), staged(make_single_communicator(), std::move(memory)));
}

}  // namespace conclave::comm
