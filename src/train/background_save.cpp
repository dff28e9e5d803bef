// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/background_save.h"

#include <cstring>

#include "conclave/core/error.h"

namespace conclave::train {

namespace {

// Lets the views of `contents` point into a copy.
std::vector<std::vector<std::byte>> take_bytes(CheckpointContents& contents) {
  std::vector<std::vector<std::byte>> copies;
  for (auto& file : contents.files) {
    size_t size = 0;
    for (const auto& tensor : file.tensors) size += tensor.bytes.size();
    auto& copy = copies.emplace_back(size);
    size_t begin = 0;
    for (auto& tensor : file.tensors) {
      const size_t length = tensor.bytes.size();
      if (length > 0) std::memcpy(copy.data() + begin, tensor.bytes.data(), length);
      tensor.bytes = {copy.data() + begin, length};
      tensor.owner.reset();
      begin += length;
    }
  }
  return copies;
}

}  // namespace

BackgroundSave::~BackgroundSave() {
  if (thread_.joinable()) thread_.join();
}

void BackgroundSave::start(const CheckpointStore& store, CheckpointContents contents) {
  CONCLAVE_CHECK(!running(), "a checkpoint is being saved already");
  step_ = contents.step;
  done_ = false;
  failure_ = nullptr;
  logged_.clear();
  auto copies = take_bytes(contents);
  const auto collecting = store.with_log(
      Log([this](LogLevel level, const std::string& text) { logged_.emplace_back(level, text); }));
  thread_ =
      std::thread([this, collecting, contents = std::move(contents), copies = std::move(copies)]() mutable {
        try {
          collecting.save(contents, *ranks_);
        } catch (...) {
          failure_ = std::current_exception();
        }
        done_ = true;
      });
}

void BackgroundSave::finish(const Log& log) {
  if (!running()) return;
  thread_.join();
  for (const auto& [level, text] : logged_) {
    if (level == LogLevel::kError) log.error(text);
    if (level == LogLevel::kWarning) log.warn(text);
    if (level == LogLevel::kInfo) log.info(text);
  }
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace conclave::train
