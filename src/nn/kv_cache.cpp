// SPDX-License-Identifier: Apache-2.0
#include "conclave/nn/kv_cache.h"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::nn {

namespace {

at::Tensor with_capacity(const at::Tensor& old, const at::Tensor& like_BGSP, int64_t capacity,
                         int64_t length) {
  auto shape = like_BGSP.sizes().vec();
  shape[2] = capacity;
  auto grown = at::empty(shape, like_BGSP.options());
  if (length > 0) grown.narrow(2, 0, length).copy_(old.narrow(2, 0, length));
  return grown;
}

}  // namespace

std::pair<at::Tensor, at::Tensor> KvCache::append(const at::Tensor& key_BGSP, const at::Tensor& value_BGSP) {
  const int64_t count = key_BGSP.size(2), capacity = keys_.defined() ? keys_.size(2) : 0;
  if (length_ + count > capacity) {
    const int64_t wanted = std::max({length_ + count, 2 * capacity, int64_t{64}});
    keys_ = with_capacity(keys_, key_BGSP, wanted, length_);
    values_ = with_capacity(values_, value_BGSP, wanted, length_);
  }
  keys_.narrow(2, length_, count).copy_(key_BGSP.detach());
  values_.narrow(2, length_, count).copy_(value_BGSP.detach());
  length_ += count;
  return {keys_.narrow(2, 0, length_), values_.narrow(2, 0, length_)};
}

void KvCache::truncate(int64_t length) {
  CONCLAVE_CHECK(length >= 0 && length <= length_,
                 fmt::format("KvCache: cannot cut {} tokens to {}", length_, length));
  length_ = length;
}

}  // namespace conclave::nn
