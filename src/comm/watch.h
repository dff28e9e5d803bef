// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <torch/csrc/distributed/c10d/Store.hpp>

namespace conclave::comm {

// By which the ranks of a run tell each other that it is over, and find out who is gone: the transport only
// knows that some connection broke. A thread of each rank looks for the word in the store and answers it,
// whatever the rank itself is computing.
class Watch {
 public:
  // `store`: a connection of the watch's own.
  Watch(c10::intrusive_ptr<c10d::Store> store, int rank, int size);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  int rank() const { return rank_; }  // in the run
  // The run is over, and why; the first word stands.
  void stop(const std::string& reason);
  // The word, if one was seen.
  std::optional<std::string> stopped() const;
  // After stop(): the ranks that have not answered within `patience`. Empty, too, when the store is gone.
  std::vector<int> missing(std::chrono::milliseconds patience);
  // The store does not answer: whoever keeps it is gone.
  bool store_is_gone() const;

 private:
  void look();
  void run();

  c10::intrusive_ptr<c10d::Store> store_;
  int rank_, size_;
  mutable std::mutex mutex_;  // of the store's connection and all below
  std::condition_variable wake_;
  bool end_ = false, store_gone_ = false;
  std::optional<std::string> word_;
  std::thread thread_;
};

}  // namespace conclave::comm
