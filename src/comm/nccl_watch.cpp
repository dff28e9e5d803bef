// SPDX-License-Identifier: Apache-2.0
#include "nccl_watch.h"

#include <utility>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::comm {

NcclWatch::NcclWatch(std::shared_ptr<NcclApi> nccl, std::shared_ptr<DeviceApi> device, NcclOptions options)
    : nccl_(std::move(nccl)), device_(std::move(device)), options_(std::move(options)) {
  thread_ = std::thread([this] { watch(); });
}

NcclWatch::~NcclWatch() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::shared_ptr<NcclMember> NcclWatch::add(const std::string& name) {
  auto member = std::make_shared<NcclMember>();
  member->name = name;
  const std::lock_guard lock(mutex_);
  members_.push_back(member);
  return member;
}

void NcclWatch::fail(const std::string& cause) {
  std::vector<std::weak_ptr<NcclMember>> members;
  {
    const std::lock_guard lock(mutex_);
    if (cause_) return;
    cause_ = cause;
    members = members_;
  }
  const auto last = record();
  for (const auto& weak : members) {
    const auto member = weak.lock();
    if (!member) continue;
    const std::lock_guard lock(member->use);
    if (member->handle) nccl_->abort(std::exchange(member->handle, nullptr));
  }
  if (options_.on_failure) options_.on_failure(cause, last);
}

std::optional<std::string> NcclWatch::cause() const {
  const std::lock_guard lock(mutex_);
  return cause_;
}

void NcclWatch::check(const std::string& what) const {
  if (const auto why = cause())
    throw Error(fmt::format("{} failed: {}", what, *why), Error::Kind::kCommunication);
}

std::string NcclWatch::record() const {
  std::vector<std::weak_ptr<NcclMember>> members;
  {
    const std::lock_guard lock(mutex_);
    members = members_;
  }
  std::string text;
  for (const auto& weak : members) {
    const auto member = weak.lock();
    if (!member) continue;
    const std::lock_guard lock(member->operations_mutex);
    for (const auto& operation : member->operations) {
      text += fmt::format("{} operation {}: {}, {}\n", member->name, operation.sequence, operation.what,
                          operation.ended ? "ended" : "not ended");
    }
  }
  return text;
}

void NcclWatch::watch() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    wake_.wait_for(lock, options_.poll);
    if (stop_ || cause_) continue;
    const auto members = members_;
    lock.unlock();
    if (const auto why = options_.stopped_elsewhere ? options_.stopped_elsewhere() : std::nullopt) fail(*why);
    for (const auto& weak : members) {
      if (const auto member = weak.lock()) look_at(*member);
    }
    lock.lock();
  }
}

void NcclWatch::look_at(NcclMember& member) {
  std::string wrong;
  {
    const std::lock_guard lock(member.use);
    if (!member.handle) return;
    const auto state = nccl_->async_error(member.handle);
    if (state.kind == NcclResult::Kind::kFailed) wrong = fmt::format("NCCL: {}", state.text);
  }
  std::unique_lock lock(member.operations_mutex);
  for (auto& operation : member.operations) {
    if (operation.ended || !wrong.empty()) continue;
    try {
      operation.ended = device_->is_done(operation.done.get());
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    const auto age = std::chrono::steady_clock::now() - operation.started;
    if (!operation.ended && wrong.empty() && age > options_.timeout) {
      wrong =
          fmt::format("{} (operation {} of {}) did not end in {} s: a rank is gone, or called something else",
                      operation.what, operation.sequence, member.name,
                      std::chrono::duration<double>(options_.timeout).count());
    }
    if (operation.ended) operation.done.reset();
  }
  while (member.operations.size() > NcclMember::kRecorded && member.operations.front().ended)
    member.operations.pop_front();
  lock.unlock();
  if (!wrong.empty()) fail(wrong);
}

}  // namespace conclave::comm
