// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <torch/csrc/distributed/c10d/Store.hpp>

namespace conclave::comm {

// By which the ranks of a run tell each other that it is over, and find out who is gone: the transport only
// knows that some connection broke. A thread of each rank looks for the word in the store and answers it,
// whatever the rank itself is computing. Nobody but that thread waits for the store, which may be cut off.
class Watch {
 public:
  // `store`: a connection of the watch's own.
  Watch(c10::intrusive_ptr<c10d::Store> store, int rank, int size);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  int rank() const;  // in the run
  // The run is over, and why; the first word stands.
  void stop(const std::string& reason);
  // The word, if one was seen.
  std::optional<std::string> stopped() const;
  // After stop(): the ranks that have not answered within `patience`. Empty, too, when the store is gone.
  std::vector<int> missing(std::chrono::milliseconds patience);
  // Why it is over for this rank, once that was found out.
  std::optional<std::string> cause() const;
  void set_cause(const std::string& cause);
  // This rank has said that it is over.
  bool gave_up() const;
  // The store does not answer: whoever keeps it is gone.
  bool store_is_gone() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // outlives the watch when its thread is stuck
};

}  // namespace conclave::comm
