// SPDX-License-Identifier: Apache-2.0
#include "compare_tensors.h"

#include <cmath>
#include <cstring>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

namespace conclave::cli {

namespace {

std::string description(const train::TensorView& view) {
  return fmt::format("{} [{}]", view.dtype, fmt::join(view.shape, ", "));
}

// In double; undefined for a type that is no floating one.
at::Tensor values(const train::TensorView& view) {
  const auto type = view.dtype == "F64"    ? at::kDouble
                    : view.dtype == "F32"  ? at::kFloat
                    : view.dtype == "BF16" ? at::kBFloat16
                    : view.dtype == "F16"  ? at::kHalf
                                           : at::kByte;
  if (type == at::kByte) return {};
  const auto tensor = at::empty(view.shape, type);  // the view may lie at any address
  std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor.to(at::kDouble);
}

std::string value_difference(const train::TensorView& first, const train::TensorView& second) {
  const auto a = values(first), b = values(second);
  if (!a.defined()) return "other bytes";
  const auto difference = a.sub(b).abs();
  const auto places = difference.ne(0).sum().item<int64_t>();
  const double scale = a.norm().item<double>();
  return fmt::format("{} of {} values differ, at most by {:.3g}; {:.3g} of the norm", places, a.numel(),
                     difference.max().item<double>(),
                     scale > 0 ? difference.norm().item<double>() / scale : NAN);
}

}  // namespace

std::vector<std::string> compare_tensors(const train::TensorSet& first, const train::TensorSet& second,
                                         const std::string& a, const std::string& b) {
  std::vector<std::string> lines;
  for (const auto& name : first.names()) {
    const auto view = first.at(name);
    if (!second.contains(name)) {
      lines.push_back(fmt::format("{}: {}, only in {}", name, description(view), a));
      continue;
    }
    const auto other = second.at(name);
    if (view.dtype != other.dtype || view.shape != other.shape) {
      lines.push_back(
          fmt::format("{}: {} in {}, {} in {}", name, description(view), a, description(other), b));
    } else if (std::memcmp(view.bytes.data(), other.bytes.data(), view.bytes.size()) != 0) {
      lines.push_back(fmt::format("{}: {}", name, value_difference(view, other)));
    }
  }
  for (const auto& name : second.names()) {
    if (!first.contains(name))
      lines.push_back(fmt::format("{}: {}, only in {}", name, description(second.outline(name)), b));
  }
  return lines;
}

}  // namespace conclave::cli
