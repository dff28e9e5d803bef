// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/threads.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "conclave/core/error.h"

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
  std::exception_ptr first;
  bool happened = false;
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
      {
        const std::lock_guard abort_lock(abort_->mutex);
        if (abort_->happened) throw broken(fmt::format("rank {}: another rank failed", rank));
      }
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

  std::vector<Post> posts;

 private:
  std::mutex mutex_;
  std::condition_variable all_here_;
  int arrived_ = 0;
  int64_t round_ = 0;
  std::chrono::milliseconds deadline_;
  std::shared_ptr<Abort> abort_;
  std::map<std::pair<int64_t, int>, std::shared_ptr<Group>> children_;
};

template <class T>
void reduce_into(std::vector<std::byte>& result, const std::vector<Post>& posts, Reduction reduction) {
  T* out = reinterpret_cast<T*>(result.data());
  const auto count = static_cast<size_t>(posts[0].in.count);
  std::copy_n(static_cast<const T*>(posts[0].in.data), count, out);
  for (size_t r = 1; r < posts.size(); ++r) {
    const T* in = static_cast<const T*>(posts[r].in.data);
    for (size_t i = 0; i < count; ++i)
      out[i] = reduction == Reduction::kSum ? out[i] + in[i] : std::max(out[i], in[i]);
  }
}

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank) : group_(std::move(group)), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

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
        group_->child(sequence_, color, static_cast<int>(members.size())), static_cast<int>(mine));
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

  void do_all_reduce(Buffer buffer, Reduction reduction) override {
    std::vector<std::byte> result(static_cast<size_t>(buffer.num_bytes()));
    collective(
        {.signature = fmt::format("all_reduce of {} {}", buffer.count, name_of(buffer.type)), .in = buffer},
        [&](const std::vector<Post>& posts) {
          switch (buffer.type) {
            case DataType::kInt32:
              return reduce_into<int32_t>(result, posts, reduction);
            case DataType::kInt64:
              return reduce_into<int64_t>(result, posts, reduction);
            case DataType::kFloat32:
              return reduce_into<float>(result, posts, reduction);
            default:
              return reduce_into<double>(result, posts, reduction);
          }
        });
    if (!result.empty()) std::memcpy(buffer.data, result.data(), result.size());
  }

  void do_all_gather(ConstBuffer in, Buffer out) override {
    collective({.signature = fmt::format("all_gather of {} {}", in.count, name_of(in.type)), .in = in},
               [&](const std::vector<Post>& posts) {
                 auto* to = static_cast<std::byte*>(out.data);
                 for (const auto& post : posts) {
                   if (in.count > 0) std::memcpy(to, post.in.data, static_cast<size_t>(in.num_bytes()));
                   to += in.num_bytes();
                 }
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

  void do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content) override {
    collective(
        {.signature = fmt::format("all_to_all of {}", name_of(in.type)),
         .in = in,
         .counts = {in_counts.begin(), in_counts.end()}},
        [&](const std::vector<Post>& posts) {
          auto* to = static_cast<std::byte*>(out.data);
          for (size_t r = 0; r < posts.size(); ++r) {
            const auto& counts = posts[r].counts;
            const auto me = static_cast<size_t>(rank_);
            if (counts[me] != out_counts[r]) {
              throw broken(fmt::format("operation {}: rank {} sends {} elements to rank {}, which expects {}",
                                       sequence_, r, counts[me], rank_, out_counts[r]));
            }
            int64_t begin = 0;
            for (size_t i = 0; i < me; ++i) begin += counts[i];
            const int64_t bytes = counts[me] * size_of(in.type);
            if (bytes == 0) continue;
            std::memcpy(to, static_cast<const std::byte*>(posts[r].in.data) + begin * size_of(in.type),
                        static_cast<size_t>(bytes));
            to += bytes;
          }
        });
  }

  void do_barrier() override {
    collective({.signature = "barrier"}, [](const std::vector<Post>&) {});
  }

  std::shared_ptr<Group> group_;
  int rank_;
  int64_t sequence_ = 0;  // of operations; the same on all ranks
};

}  // namespace

void run_ranks(int size, const std::function<void(Communicator&)>& body, std::chrono::milliseconds deadline) {
  CONCLAVE_CHECK(size > 0, fmt::format("{} ranks", size));
  const auto abort = std::make_shared<Abort>();
  const auto group = std::make_shared<Group>(size, deadline, abort);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        ThreadCommunicator communicator(group, rank);
        body(communicator);
      } catch (...) {
        const std::lock_guard lock(abort->mutex);
        if (!abort->happened) abort->first = std::current_exception();
        abort->happened = true;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (abort->happened) std::rethrow_exception(abort->first);
}

}  // namespace conclave::comm
