// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/agreement.h"

#include <cstdint>
#include <exception>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::comm {

namespace {

Buffer bytes_of(std::string& text) {
  return {text.data(), static_cast<int64_t>(text.size()), DataType::kUInt8};
}

}  // namespace

std::string broadcast_text(Communicator& ranks, const std::string& text, int root) {
  auto length = static_cast<int64_t>(text.size());
  ranks.broadcast({&length, 1, DataType::kInt64}, root);
  std::string result = text;
  result.resize(static_cast<size_t>(length));
  ranks.broadcast(bytes_of(result), root);
  return result;
}

std::vector<std::string> all_gather_texts(Communicator& ranks, const std::string& text) {
  std::vector<std::string> texts;
  for (int r = 0; r < ranks.size(); ++r) texts.push_back(broadcast_text(ranks, text, r));
  return texts;
}

void do_together(Communicator& ranks, const std::function<void()>& part) {
  std::exception_ptr failure;
  std::string text;
  try {
    part();
  } catch (const std::exception& error) {
    failure = std::current_exception();
    text = error.what();
  }
  // 0: it went well; else the lower the rank, the higher the number.
  int32_t loudest = failure ? ranks.size() - ranks.rank() : 0;
  ranks.all_reduce({&loudest, 1, DataType::kInt32}, Reduction::kMax);
  if (loudest == 0) return;
  const int first = ranks.size() - loudest;
  text = broadcast_text(ranks, text, first);
  if (failure) std::rethrow_exception(failure);
  throw Error(fmt::format("rank {} of {} failed: {}", first, ranks.size(), text),
              Error::Kind::kCommunication);
}

}  // namespace conclave::comm
