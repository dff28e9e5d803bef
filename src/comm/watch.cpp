// SPDX-License-Identifier: Apache-2.0
#include "watch.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include <fmt/format.h>

namespace conclave::comm {

namespace {

constexpr const char* kStopKey = "stop";
constexpr std::chrono::milliseconds kInterval{250};  // between two looks
constexpr std::chrono::milliseconds kStorePatience{
    3000};  // until a store that does not answer counts as gone

std::string answer_key(int rank) {
  return fmt::format("answer/{}", rank);
}

}  // namespace

struct Watch::State {
  c10::intrusive_ptr<c10d::Store> store;  // the thread's alone
  int rank = 0, size = 0;

  std::mutex mutex;  // of all below
  std::condition_variable changed;
  std::optional<std::string> to_tell, word;
  bool asked = false;  // who is missing
  std::optional<std::vector<int>> missing;
  bool gone = false, end = false, ended = false;

  // One look at the store.
  void look() {
    std::unique_lock lock(mutex);
    const auto tell = std::exchange(to_tell, std::nullopt);
    const bool told = word.has_value(), ask = asked;
    lock.unlock();
    if (tell) store->compareSet(kStopKey, std::string(), *tell);
    std::optional<std::string> seen;
    if (!told && store->check({kStopKey})) {
      seen = store->get_to_str(kStopKey);
      store->set(answer_key(rank), std::string("here"));
    }
    std::vector<int> silent;
    for (int r = 0; ask && r < size; ++r) {
      if (!store->check({answer_key(r)})) silent.push_back(r);
    }
    lock.lock();
    if (seen) word = seen;
    if (ask) missing = silent;
  }

  void run() {
    while (true) {
      bool failed = false;
      try {
        look();
      } catch (const std::exception&) {
        failed = true;
      }
      std::unique_lock lock(mutex);
      gone |= failed;
      changed.notify_all();
      if (!end && !gone)
        changed.wait_for(lock, asked ? kInterval / 5 : kInterval, [this] { return end || to_tell; });
      if (!end && !gone) continue;
      ended = true;
      changed.notify_all();
      return;
    }
  }
};

Watch::Watch(c10::intrusive_ptr<c10d::Store> store, int rank, int size) : state_(std::make_shared<State>()) {
  state_->store = std::move(store);
  state_->rank = rank;
  state_->size = size;
  std::thread([state = state_] { state->run(); }).detach();
}

Watch::~Watch() {
  std::unique_lock lock(state_->mutex);
  state_->end = true;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, kStorePatience, [this] { return state_->ended; });
}

int Watch::rank() const {
  return state_->rank;
}

void Watch::stop(const std::string& reason) {
  std::unique_lock lock(state_->mutex);
  if (state_->word || state_->gone) return;
  state_->to_tell = reason;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, kStorePatience, [this] { return state_->word || state_->gone; });
  if (!state_->word) state_->gone = true;
}

std::optional<std::string> Watch::stopped() const {
  const std::lock_guard lock(state_->mutex);
  return state_->word;
}

bool Watch::store_is_gone() const {
  const std::lock_guard lock(state_->mutex);
  return state_->gone;
}

std::vector<int> Watch::missing(std::chrono::milliseconds patience) {
  std::unique_lock lock(state_->mutex);
  state_->asked = true;
  state_->changed.notify_all();
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!state_->gone && std::chrono::steady_clock::now() < end) {
    if (state_->missing && state_->missing->empty()) return {};
    state_->changed.wait_until(lock, end);
  }
  if (!state_->missing) state_->gone = true;
  return state_->missing.value_or(std::vector<int>());  // what was known when the store went
}

}  // namespace conclave::comm
