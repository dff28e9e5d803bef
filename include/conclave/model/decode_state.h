// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "conclave/nn/kv_cache.h"

namespace conclave::model {

// What a model remembers of one document while it is continued: LanguageModel::extend fills it.
struct DecodeState {
  std::vector<nn::KvCache> layers = {};
  int64_t length = 0;  // tokens seen = position of the next one

  // Forgets all tokens from `new_length` on, so that another continuation can start there.
  void truncate(int64_t new_length) {
    for (auto& layer : layers) layer.truncate(new_length);
    length = new_length;
  }
};

}  // namespace conclave::model
