// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::train {

// Bits of one element of a safetensors dtype ("F32": 32, "F4": 4); nothing for an unknown name.
std::optional<int> dtype_bits(std::string_view dtype);

// Bytes of a tensor, all products checked for overflow; nothing, with the reason in `problem`, when the dtype
// is unknown, a size is negative, the product does not fit, or sub-byte elements do not fill whole bytes.
std::optional<uint64_t> tensor_bytes(std::string_view dtype, const std::vector<int64_t>& shape,
                                     std::string& problem);

}  // namespace conclave::train
