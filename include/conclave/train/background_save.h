// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conclave/train/checkpoint_store.h"

namespace conclave::train {

// Saves a copy of a checkpoint while training goes on. Every rank has one, and they do the same.
class BackgroundSave {
 public:
  // `ranks`: a communicator that nothing else uses.
  explicit BackgroundSave(std::shared_ptr<comm::Communicator> ranks) : ranks_(std::move(ranks)) {}
  ~BackgroundSave();  // waits
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;

  // Copies the tensors, so that they may change afterwards, and returns; after finish() of the one before.
  void start(const CheckpointStore& store, CheckpointContents contents);
  bool running() const { return thread_.joinable(); }  // started, and finish() not called
  bool done() const { return done_; }                  // on this rank
  int64_t step() const { return step_; }
  // Waits, hands over what was logged, and throws what save threw.
  void finish(const Log& log);

 private:
  std::shared_ptr<comm::Communicator> ranks_;
  std::thread thread_;
  std::atomic<bool> done_ = false;
  int64_t step_ = -1;
  std::exception_ptr failure_;
  std::vector<std::pair<LogLevel, std::string>> logged_;
};

}  // namespace conclave::train
