// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/threads.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "reduce.h"

namespace conclave::comm {

namespace {

Error broken(const std::string& message) {
  return Error(message, Error::Kind::kCommunication);
}

// What a rank shows to the others while an operation lasts.
struct Post {
  std::string signature = {};  // operation, type and count that have to agree
  ConstBuffer in = {};
  std::vector<int64_t> counts = {};
  int color = 0, key = 0;
};

// Why nobody of a run waits any longer; shared by a group and all that were split from it.
struct Abort {
  std::mutex mutex;
  bool happened = false;
  int rank = 0;  // that was the first
  std::string reason = {};

  void tell(int by, const std::string& why) {
    const std::lock_guard lock(mutex);
    if (happened) return;
    happened = true;
    rank = by;
    reason = why;
  }

  std::optional<std::string> word() {
    const std::lock_guard lock(mutex);
    return happened ? std::optional(reason) : std::nullopt;
  }

  // Throws in a rank that waits.
  void check(int rank) {
    const std::lock_guard lock(mutex);
    if (happened) throw broken(fmt::format("rank {}: {}", rank, reason));
  }
};

class Group {
 public:
  Group(int size, std::chrono::milliseconds deadline, std::shared_ptr<Abort> abort)
      : posts(static_cast<size_t>(size)), deadline_(deadline), abort_(std::move(abort)) {}

  int size() const { return static_cast<int>(posts.size()); }

  // Returns when all ranks have called it. In slices, because an abort wakes only its own group.
  void arrive(int rank) {
    std::unique_lock lock(mutex_);
    const int64_t round = round_;
    if (++arrived_ == size()) {
      arrived_ = 0;
      ++round_;
      all_here_.notify_all();
      return;
    }
    const auto end = std::chrono::steady_clock::now() + deadline_;
    while (round_ == round) {
      all_here_.wait_for(lock, std::chrono::milliseconds(20));
      if (round_ != round) break;
      abort_->check(rank);
      if (std::chrono::steady_clock::now() > end) {
        throw broken(fmt::format("rank {}: only {} of {} ranks came to {} within {} ms", rank, arrived_,
                                 size(), posts[static_cast<size_t>(rank)].signature, deadline_.count()));
      }
    }
  }

  // The group of one color; made by whoever asks first.
  std::shared_ptr<Group> child(int64_t sequence, int color, int size) {
    const std::lock_guard lock(mutex_);
    auto& group = children_[{sequence, color}];
    if (!group) group = std::make_shared<Group>(size, deadline_, abort_);
    return group;
  }

  // Messages wait at the receiver until it asks for them.
  struct Message {
    DataType type = {};
    std::vector<std::byte> bytes = {};
  };
  void leave(int from, int to, Message message) {
    const std::lock_guard lock(mutex_);
    messages_[{from, to}].push_back(std::move(message));
    all_here_.notify_all();
  }
  Message fetch(int from, int to) {
    std::unique_lock lock(mutex_);
    auto& waiting = messages_[{from, to}];
    const auto end = std::chrono::steady_clock::now() + deadline_;
    while (waiting.empty()) {
      all_here_.wait_for(lock, std::chrono::milliseconds(20));
      abort_->check(to);
      if (waiting.empty() && std::chrono::steady_clock::now() > end)
        throw broken(
            fmt::format("rank {}: nothing came from rank {} within {} ms", to, from, deadline_.count()));
    }
    auto message = std::move(waiting.front());
    waiting.pop_front();
    return message;
  }
  Abort& abort() { return *abort_; }

  std::vector<Post> posts;

 private:
  std::mutex mutex_;
  std::condition_variable all_here_;
  std::map<std::pair<int, int>, std::deque<Message>> messages_;
  int arrived_ = 0;
  int64_t round_ = 0;
  std::chrono::milliseconds deadline_;
  std::shared_ptr<Abort> abort_;
  std::map<std::pair<int64_t, int>, std::shared_ptr<Group>> children_;
};

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank, int world_rank)
      : group_(std::move(group)), rank_(rank), world_rank_(world_rank) {}
  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  std::optional<std::string> stopped() const override { return group_->abort().word(); }
  void abort(const std::string& reason) override {
    group_->abort().tell(world_rank_, fmt::format("rank {} gave up: {}", world_rank_, reason));
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    std::vector<std::pair<int, int>> members;  // (key, rank) of this color
    collective({.signature = "split", .color = color, .key = key}, [&](const std::vector<Post>& posts) {
      for (int r = 0; r < size(); ++r) {
        const Post& post = posts[static_cast<size_t>(r)];
        if (post.color == color) members.emplace_back(post.key, r);
      }
    });
    std::sort(members.begin(), members.end());
    const auto mine = std::find(members.begin(), members.end(), std::pair(key, rank_)) - members.begin();
    return std::make_unique<ThreadCommunicator>(
        group_->child(sequence_, color, static_cast<int>(members.size())), static_cast<int>(mine),
        world_rank_);
  }

 private:
  // Shows `post`, waits for all, lets `body` read what the others show, and waits until all have read.
  template <class Body>
  void collective(Post post, Body body) {
    ++sequence_;
    const std::string signature = post.signature;
    group_->posts[static_cast<size_t>(rank_)] = std::move(post);
    group_->arrive(rank_);
    for (int r = 0; r < size(); ++r) {
      const auto& other = group_->posts[static_cast<size_t>(r)].signature;
      if (other != signature) {
        throw broken(fmt::format("operation {}: rank {} called {}, rank {} called {}", sequence_, rank_,
                                 signature, r, other));
      }
    }
    body(group_->posts);
    group_->arrive(rank_);
  }

  // What is started is done when it is waited for: a rank that waited at the start might wait for one that
  // has not come so far.
  Work do_all_reduce(Buffer buffer, Reduction reduction) override {
    return Work([this, buffer, reduction] {
      std::vector<std::byte> result(static_cast<size_t>(buffer.num_bytes()));
      collective(
          {.signature = fmt::format("all_reduce of {} {}", buffer.count, name_of(buffer.type)), .in = buffer},
          [&](const std::vector<Post>& posts) {
            std::vector<const void*> parts;
            for (const auto& post : posts) parts.push_back(post.in.data);
            reduce_in_order(parts, reduction, {result.data(), buffer.count, buffer.type});
          });
      if (!result.empty()) std::memcpy(buffer.data, result.data(), result.size());
    });
  }

  Work do_all_gather(ConstBuffer in, Buffer out, Content) override {
    return Work([this, in, out] {
      collective({.signature = fmt::format("all_gather of {} {}", in.count, name_of(in.type)), .in = in},
                 [&](const std::vector<Post>& posts) {
                   auto* to = static_cast<std::byte*>(out.data);
                   for (const auto& post : posts) {
                     if (in.count > 0) std::memcpy(to, post.in.data, static_cast<size_t>(in.num_bytes()));
                     to += in.num_bytes();
                   }
                 });
    });
  }

  void do_broadcast(Buffer buffer, int root) override {
    collective(
        {.signature = fmt::format("broadcast of {} {} from {}", buffer.count, name_of(buffer.type), root),
         .in = buffer},
        [&](const std::vector<Post>& posts) {
          if (rank_ == root || buffer.count == 0) return;
          std::memcpy(buffer.data, posts[static_cast<size_t>(root)].in.data,
                      static_cast<size_t>(buffer.num_bytes()));
        });
  }

  Work do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content) override {
    return Work([this, in, out, sent = std::vector(in_counts.begin(), in_counts.end()),
                 expected = std::vector(out_counts.begin(), out_counts.end())] {
      collective({.signature = fmt::format("all_to_all of {}", name_of(in.type)), .in = in, .counts = sent},
                 [&](const std::vector<Post>& posts) { collect(posts, expected, out); });
    });
  }

  // This rank's part of what each of `posts` sends.
  void collect(const std::vector<Post>& posts, const std::vector<int64_t>& expected, Buffer out) const {
    const auto me = static_cast<size_t>(rank_);
    auto* to = static_cast<std::byte*>(out.data);
    for (size_t r = 0; r < posts.size(); ++r) {
      const auto& counts = posts[r].counts;
      if (counts[me] != expected[r]) {
        throw broken(fmt::format("operation {}: rank {} sends {} elements to rank {}, which expects {}",
                                 sequence_, r, counts[me], rank_, expected[r]));
      }
      int64_t begin = 0;
      for (size_t i = 0; i < me; ++i) begin += counts[i];
      const int64_t bytes = counts[me] * size_of(out.type);
      if (bytes == 0) continue;
      std::memcpy(to, static_cast<const std::byte*>(posts[r].in.data) + begin * size_of(out.type),
                  static_cast<size_t>(bytes));
      to += bytes;
    }
  }

  void do_send(ConstBuffer in, int to) override {
    const auto* bytes = static_cast<const std::byte*>(in.data);
    group_->leave(rank_, to, {in.type, {bytes, bytes + in.num_bytes()}});
  }
  void do_receive(Buffer out, int from) override {
    const auto message = group_->fetch(from, rank_);
    const auto count = static_cast<int64_t>(message.bytes.size()) / size_of(message.type);
    if (message.type != out.type || count != out.count) {
      throw broken(fmt::format("rank {} sends {} {} to rank {}, which expects {} {}", from, count,
                               name_of(message.type), rank_, out.count, name_of(out.type)));
    }
    if (count > 0) std::memcpy(out.data, message.bytes.data(), message.bytes.size());
  }

  void do_barrier() override {
    collective({.signature = "barrier"}, [](const std::vector<Post>&) {});
  }

  std::shared_ptr<Group> group_;
  int rank_, world_rank_;
  int64_t sequence_ = 0;  // of operations; the same on all ranks
};

}  // namespace

void run_ranks(int size, const std::function<void(Communicator&)>& body, std::chrono::milliseconds deadline) {
  CONCLAVE_CHECK(size > 0, fmt::format("{} ranks", size));
  const auto abort = std::make_shared<Abort>();
  const auto group = std::make_shared<Group>(size, deadline, abort);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        ThreadCommunicator communicator(group, rank, rank);
        body(communicator);
      } catch (...) {
        errors[static_cast<size_t>(rank)] = std::current_exception();
        abort->tell(rank, "another rank failed");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (auto& first = errors[static_cast<size_t>(abort->rank)]; first) std::rethrow_exception(first);
}

}  // namespace conclave::comm
