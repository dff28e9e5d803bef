// SPDX-License-Identifier: Apache-2.0
#include "watch.h"

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>
#include <utility>

#include <fmt/format.h>

namespace conclave::comm {

namespace {

constexpr const char *kStopKey = "stop", *kAnswersKey = "answers";
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
  std::optional<std::string> to_tell, word, cause;
  bool asked = false, asked_who = false;  // how many have answered; who has not
  int answers = 0;
  std::optional<std::vector<int>> missing;
  bool gave_up = false, gone = false, end = false, ended = false;

  // One look at the store.
  void look() {
    std::unique_lock lock(mutex);
    const auto tell = std::exchange(to_tell, std::nullopt);
    const bool told = word.has_value(), ask = asked, ask_who = asked_who;
    lock.unlock();
    if (tell) store->compareSet(kStopKey, std::string(), *tell);
    std::optional<std::string> seen;
    if (!told && store->check({kStopKey})) {
      seen = store->get_to_str(kStopKey);
      store->set(answer_key(rank), std::string("here"));
      store->add(kAnswersKey, 1);
    }
    const auto number = ask ? static_cast<int>(store->add(kAnswersKey, 0)) : 0;
    std::vector<int> silent;
    for (int r = 0; ask_who && r < size; ++r) {
      if (!store->check({answer_key(r)})) silent.push_back(r);
    }
    lock.lock();
    if (seen) word = seen;
    answers = std::max(answers, number);
    if (ask_who) missing = silent;
  }

  void run() {
    // Torch writes to the store's socket whether somebody reads it or not: an error is enough.
    sigset_t broken_pipe;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
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
  state_->gave_up = true;
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

std::optional<std::string> Watch::cause() const {
  const std::lock_guard lock(state_->mutex);
  return state_->cause;
}

void Watch::set_cause(const std::string& cause) {
  const std::lock_guard lock(state_->mutex);
  state_->cause = cause;
}

bool Watch::gave_up() const {
  const std::lock_guard lock(state_->mutex);
  return state_->gave_up;
}

bool Watch::store_is_gone() const {
  const std::lock_guard lock(state_->mutex);
  return state_->gone;
}

std::vector<int> Watch::missing(std::chrono::milliseconds patience) {
  std::unique_lock lock(state_->mutex);
  state_->asked = true;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, patience,
                           [this] { return state_->gone || state_->answers == state_->size; });
  if (state_->gone || state_->answers == state_->size) return {};
  state_->asked_who = true;
  state_->changed.wait_for(lock, kStorePatience, [this] { return state_->gone || state_->missing; });
  if (!state_->missing) state_->gone = true;
  return state_->missing.value_or(std::vector<int>());
}

}  // namespace conclave::comm
