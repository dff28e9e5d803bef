// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/safetensors_dtypes.h"

#include <fmt/format.h>

namespace conclave::train {

namespace {

struct DtypeWidth {
  std::string_view name;
  int bits = 0;
};

constexpr DtypeWidth kDtypeWidths[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
};

}  // namespace

std::optional<int> dtype_bits(std::string_view dtype) {
  for (const auto& width : kDtypeWidths) {
    if (width.name == dtype) return width.bits;
  }
  return std::nullopt;
}

std::optional<uint64_t> tensor_bytes(std::string_view dtype, const std::vector<int64_t>& shape,
                                     std::string& problem) {
  const auto bits = dtype_bits(dtype);
  if (!bits) {
    std::string known;
    for (const auto& width : kDtypeWidths)
      known += fmt::format("{}{}", known.empty() ? "" : ", ", width.name);
    problem = fmt::format("unknown dtype '{}' (known: {})", dtype, known);
    return std::nullopt;
  }
  uint64_t total = static_cast<uint64_t>(*bits);
  for (const int64_t size : shape) {
    if (size < 0) {
      problem = fmt::format("negative size {} in its shape", size);
      return std::nullopt;
    }
    if (__builtin_mul_overflow(total, static_cast<uint64_t>(size), &total)) {
      problem = fmt::format("shape [{}] overflows", fmt::join(shape, ", "));
      return std::nullopt;
    }
  }
  if (total % 8 != 0) {
    problem = fmt::format("shape [{}] of {} does not fill whole bytes", fmt::join(shape, ", "), dtype);
    return std::nullopt;
  }
  return total / 8;
}

}  // namespace conclave::train
