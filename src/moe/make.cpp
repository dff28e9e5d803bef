// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/make.h"

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::moe {

RouterShape router_shape(const MoeLayerOptions& options) {
  return {.width = options.width,
          .num_experts = options.num_experts,
          .layer = options.layer,
          .dtype = options.dtype == at::kDouble ? at::kDouble : at::kFloat};
}

std::shared_ptr<MoeLayer> make_moe_layer(const MoeLayerOptions& options, const MakeRouter& make_router,
                                         uint64_t seed, double initializer_range) {
  CONCLAVE_CHECK(options.width > 0 && options.num_experts > 0 && options.expert_width > 0,
                 fmt::format("MoE layer: width ({}), num_experts ({}) and expert_width ({}) must be positive",
                             options.width, options.num_experts, options.expert_width));
  auto layer = std::make_shared<MoeLayer>(options, make_router(router_shape(options)));
  nn::initialise(*layer, initializer_range, seed);
  return layer;
}

std::unique_ptr<AuxLoss> make_load_balancing_loss(const LoadBalancingOptions& options) {
  return load_balancing_entry().make(options);
}
std::unique_ptr<AuxLoss> make_z_loss(const ZLossOptions& options) {
  return z_loss_entry().make(options);
}

}  // namespace conclave::moe
