// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "conclave/comm/nccl.h"

namespace conclave::comm {

// One communicator, as the thread that watches sees it. `use` is held during every call of NCCL with
// `handle`, none of which blocks, and by abort, after which there is no handle. While it connects there is
// none yet: NCCL writes `connecting`, when it pleases.
struct NcclMember {
  std::string name;
  std::mutex use;
  NcclHandle handle = nullptr, connecting = nullptr;

  struct Operation {
    int64_t sequence = 0;
    std::string what;  // "all_to_all of 512 fp32"
    std::shared_ptr<DeviceEventTag> done;
    std::chrono::steady_clock::time_point started;
    bool ended = false;
  };
  static constexpr size_t kRecorded = 32;
  std::mutex operations_mutex;
  std::deque<Operation> operations;  // the last ones, and all that have not ended
  int64_t sequence = 0;
};

// Of all communicators of a rank: watches them, and ends them together.
class NcclWatch {
 public:
  NcclWatch(std::shared_ptr<NcclApi> nccl, std::shared_ptr<DeviceApi> device, NcclOptions options);
  ~NcclWatch();
  NcclWatch(const NcclWatch&) = delete;
  NcclWatch& operator=(const NcclWatch&) = delete;

  std::shared_ptr<NcclMember> add(const std::string& name);
  // The run is over: aborts all communicators. The first cause stands.
  void fail(const std::string& cause);
  std::optional<std::string> cause() const;
  // Throws once the run is over.
  void check(const std::string& what) const;
  // What the communicators did last, a line each.
  std::string record() const;

  NcclApi& nccl() { return *nccl_; }
  DeviceApi& device() { return *device_; }
  std::shared_ptr<DeviceApi> shared_device() const { return device_; }
  const NcclOptions& options() const { return options_; }

 private:
  void watch();
  void look_at(NcclMember& member);

  std::shared_ptr<NcclApi> nccl_;
  std::shared_ptr<DeviceApi> device_;
  NcclOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::optional<std::string> cause_;
  std::vector<std::weak_ptr<NcclMember>> members_;
  std::thread thread_;
};

}  // namespace conclave::comm
