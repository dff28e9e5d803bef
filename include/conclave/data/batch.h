// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

namespace conclave::data {

// One micro-batch as plain integers, so that models take it without knowing files. All vectors are row-major
// [num_sequences, seq_length]. A *padding* position has token 0, target -1, document -1, domain -1: it is
// never routed, never counted and has no loss.
struct Batch {
  int64_t num_sequences = 0;
  int64_t seq_length = 0;
  std::vector<int32_t> token;
  std::vector<int32_t> target;  // token to predict at this position; -1: none
  std::vector<int32_t>
      document;  // 0, 1, ... inside its row: attention stays inside one document; -1: padding
  std::vector<int32_t> position;   // inside the document, restarts at 0
  std::vector<int32_t> domain;     // index into the corpus' domain names
  std::vector<int64_t> global_id;  // id of the token in the run's global stream; keys its random numbers
  int64_t num_tokens = 0;          // positions that are not padding
  int64_t num_targets = 0;         // positions with a target
  int64_t num_target_bytes = 0;    // bytes of text that the targets stand for (document marks are no bytes)

  int64_t size() const { return num_sequences * seq_length; }
};

}  // namespace conclave::data
