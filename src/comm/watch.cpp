// SPDX-License-Identifier: Apache-2.0
#include "watch.h"

#include <utility>

#include <fmt/format.h>

namespace conclave::comm {

namespace {

constexpr const char* kStopKey = "stop";
constexpr std::chrono::milliseconds kInterval{250};

std::string answer_key(int rank) {
  return fmt::format("answer/{}", rank);
}

}  // namespace

Watch::Watch(c10::intrusive_ptr<c10d::Store> store, int rank, int size)
    : store_(std::move(store)), rank_(rank), size_(size), thread_([this] { run(); }) {}

Watch::~Watch() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watch::run() {
  std::unique_lock lock(mutex_);
  while (!end_ && !word_ && !store_gone_) {
    look();
    wake_.wait_for(lock, kInterval, [this] { return end_; });
  }
}

void Watch::look() {
  try {
    if (!store_->check({kStopKey})) return;
    word_ = store_->get_to_str(kStopKey);
    store_->set(answer_key(rank_), std::string("here"));
  } catch (const std::exception&) {
    store_gone_ = true;
  }
}

void Watch::stop(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  try {
    store_->compareSet(kStopKey, std::string(), reason);
  } catch (const std::exception&) {
    store_gone_ = true;
  }
  if (!word_ && !store_gone_) look();
}

std::optional<std::string> Watch::stopped() const {
  const std::lock_guard lock(mutex_);
  return word_;
}

bool Watch::store_is_gone() const {
  const std::lock_guard lock(mutex_);
  return store_gone_;
}

std::vector<int> Watch::missing(std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (true) {
    std::vector<int> ranks;
    {
      const std::lock_guard lock(mutex_);
      try {
        for (int r = 0; r < size_ && !store_gone_; ++r) {
          if (!store_->check({answer_key(r)})) ranks.push_back(r);
        }
      } catch (const std::exception&) {
        store_gone_ = true;
      }
      if (store_gone_) return {};
    }
    if (ranks.empty() || std::chrono::steady_clock::now() > end) return ranks;
    std::this_thread::sleep_for(kInterval / 5);
  }
}

}  // namespace conclave::comm
