// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

namespace conclave::model {

struct SamplingOptions {
  int64_t max_tokens = 256;
  double temperature = 1.0;  // divides the logits; 0: always the most likely token
  double top_p = 1.0;        // nucleus (Holtzman et al., 2020): the likeliest tokens that together reach it
  uint64_t seed = 1234;
  // Throws Error that names the option.
  void check() const;
};

// A token id out of logits_V [V] (any floating dtype), in double: the most likely one at temperature 0 (the
// lowest id of equals), else the one that `draw` in [0, 1) falls on. Throws Error on a NaN or infinite logit.
int32_t sample_token(const at::Tensor& logits_V, const SamplingOptions& options, double draw);

}  // namespace conclave::model
