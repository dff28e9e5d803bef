// SPDX-License-Identifier: Apache-2.0
#include "reduce.h"

#include <algorithm>

namespace conclave::comm {

namespace {

template <class T>
void reduce_as(const std::vector<const void*>& parts, Reduction reduction, Buffer out) {
  T* to = static_cast<T*>(out.data);
  std::copy_n(static_cast<const T*>(parts[0]), out.count, to);
  for (size_t r = 1; r < parts.size(); ++r) {
    const T* from = static_cast<const T*>(parts[r]);
    for (int64_t i = 0; i < out.count; ++i)
      to[i] = reduction == Reduction::kSum ? to[i] + from[i] : std::max(to[i], from[i]);
  }
}

}  // namespace

void reduce_in_order(const std::vector<const void*>& parts, Reduction reduction, Buffer out) {
  switch (out.type) {
    case DataType::kInt32:
      return reduce_as<int32_t>(parts, reduction, out);
    case DataType::kInt64:
      return reduce_as<int64_t>(parts, reduction, out);
    case DataType::kFloat32:
      return reduce_as<float>(parts, reduction, out);
    default:  // the types that would round at every step are refused before
      return reduce_as<double>(parts, reduction, out);
  }
}

}  // namespace conclave::comm
