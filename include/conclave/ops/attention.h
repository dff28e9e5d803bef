// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

// Legend: B sequences, S tokens per sequence, H heads, G key/value heads (G divides H), P head width.
namespace conclave::ops {

// Who looks at whom. One of the tensors at most is there; without any, every token of a sequence looks at
// all, or at those before it.
struct AttentionPattern {
  bool causal = true;
  at::Tensor mask_BSS = {};  // [B, 1, S, keys] bool, true: may look at; says all, `causal` nothing
  // The sequences are cut into ranges that know nothing of each other: range r is [starts[r], starts[r + 1])
  // of the B * S tokens, whole sequences one after the other.
  at::Tensor range_starts_R1 = {};  // [R + 1] int32
  int64_t longest_range = 0;
};

// Whether attention() takes ranges on this device, which costs no memory for masks; else it takes a mask.
bool takes_ranges(c10::DeviceType device, c10::ScalarType stored, int64_t head_width);

// softmax(q k^T / sqrt(P)) v. q_BHSP; k_BGSP and v_BGSP with as many keys as there are; returns [B, S, H, P]
// in the dtype of q. Softmax and sums in fp32 or wider, whatever is stored.
at::Tensor attention(const at::Tensor& q_BHSP, const at::Tensor& k_BGSP, const at::Tensor& v_BGSP,
                     const AttentionPattern& pattern);

}  // namespace conclave::ops
