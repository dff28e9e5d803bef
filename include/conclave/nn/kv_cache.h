// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <utility>

#include <ATen/core/Tensor.h>

namespace conclave::nn {

// Keys and values of the tokens that one attention layer has seen, for generation: [B, G, S, P], G key/value
// heads of width P, keys already rotated. Grows by doubling, so n tokens cost O(n) copies. Holds no gradient.
class KvCache {
 public:
  int64_t length() const { return length_; }
  // Appends [B, G, n, P] each; returns views of everything seen so far, [B, G, length, P].
  std::pair<at::Tensor, at::Tensor> append(const at::Tensor& key_BGSP, const at::Tensor& value_BGSP);
  // Forgets all tokens from `length` on; longer than what there is: an Error.
  void truncate(int64_t length);

 private:
  at::Tensor keys_, values_;  // [B, G, capacity, P]
  int64_t length_ = 0;
};

}  // namespace conclave::nn
