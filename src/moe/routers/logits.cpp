// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/routers/logits.h"

#include <cmath>

#include <ATen/ops/full_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::moe {

const std::vector<std::pair<std::string, NonFinitePolicy>>& non_finite_names() {
  static const std::vector<std::pair<std::string, NonFinitePolicy>> names = {
      {"error", NonFinitePolicy::kError}, {"mask", NonFinitePolicy::kMask}};
  return names;
}

at::Tensor checked_logits(const at::Tensor& logits_UE, NonFinitePolicy policy, int layer) {
  const auto finite = logits_UE.detach().isfinite();
  if (finite.all().item<bool>()) return logits_UE;
  if (policy == NonFinitePolicy::kError) {
    throw Error(
        fmt::format("router of layer {}: {} of {} logits are NaN or infinite; lower the learning rate, add a "
                    "z_loss, or set router.on_nonfinite: mask",
                    layer, logits_UE.numel() - finite.sum().item<int64_t>(), logits_UE.numel()),
        Error::Kind::kDiverged);
  }
  return at::where(finite, logits_UE, at::full_like(logits_UE, -INFINITY));
}

at::Tensor int_tensor(const std::vector<int32_t>& values) {
  return at::tensor(values, at::kInt);
}

}  // namespace conclave::moe
