// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/routers/dselect_k.h"

#include <bit>

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace conclave::moe {

void DSelectKOptions::fields(config::Fields& f) {
  f("num_selectors", num_selectors, "Selectors; each ends up at one expert.").min(1);
  f("gamma", gamma, "Width of the smooth step; small values saturate earlier.").positive();
  f("conditioning", conditioning, {{"example", Conditioning::kExample}, {"static", Conditioning::kStatic}},
    "Selectors depend on the token, or are the same for all tokens.");
}

at::Tensor smooth_step(const at::Tensor& u, double gamma) {
  const auto cubic = u.pow(3).mul(-2.0 / (gamma * gamma * gamma)).add(u, 1.5 / gamma).add(0.5);
  const auto low = at::where(u.le(-gamma / 2), at::zeros_like(u), cubic);
  return at::where(u.ge(gamma / 2), at::ones_like(u), low);
}

at::Tensor selector_probabilities(const at::Tensor& z, int64_t num_experts, double gamma) {
  const int64_t num_bits = z.size(-1);
  const auto on = smooth_step(z, gamma);
  const auto off = on.neg().add(1);
  std::vector<at::Tensor> experts;
  for (int64_t e = 0; e < num_experts; ++e) {
    auto product = at::ones_like(z.select(-1, 0));
    for (int64_t b = 0; b < num_bits; ++b) {
      const bool set = (e >> (num_bits - 1 - b)) & 1;
      product = product.mul((set ? on : off).select(-1, b));
    }
    experts.push_back(product);
  }
  return at::stack(experts, -1);
}

namespace {

class DSelectKRouter : public Router {
 public:
  DSelectKRouter(const DSelectKOptions& options, const RouterShape& shape)
      : options_(options),
        shape_(shape),
        num_bits_(static_cast<int64_t>(std::bit_width(static_cast<uint64_t>(shape.num_experts - 1)))) {
    const int64_t k = options.num_selectors;
    const auto add = [&](const char* name, std::vector<int64_t> sizes, double bound) {
      return register_tagged(
          name, at::empty(sizes, shape.dtype),
          {.role = sizes.size() > 1 ? nn::ParamRole::kRouter : nn::ParamRole::kBias, .init_uniform = bound});
    };
    if (options.conditioning == Conditioning::kExample) {
      z_weight_ = add("z_weight", {k * num_bits_, shape.width}, options.gamma / 100);
      alpha_weight_ = add("alpha_weight", {k, shape.width}, 0.05);
    }
    z_bias_ = add("z_bias", {k * num_bits_}, options.gamma / 100);
    alpha_bias_ = add("alpha_bias", {k}, 0.05);
  }

  RoutingPlan route(const at::Tensor& x_UD, const UnitMap& units, const ForwardContext&,
                    RouterTrace& trace) override {
    const int64_t k = options_.num_selectors, num_units = x_UD.size(0), num_experts = shape_.num_experts;
    const bool per_token = options_.conditioning == Conditioning::kExample;
    const auto x = x_UD.to(shape_.dtype);
    const auto z = per_token ? at::linear(x, z_weight_, z_bias_) : z_bias_.unsqueeze(0);
    const auto alpha = per_token ? at::linear(x, alpha_weight_, alpha_bias_) : alpha_bias_.unsqueeze(0);
    // One expert has no bits to choose: every selector is at it.
    const auto r_UKE = num_bits_ > 0
                           ? selector_probabilities(z.view({-1, k, num_bits_}), num_experts, options_.gamma)
                           : at::ones({z.size(0), k, 1}, x.options());
    const auto weight_UE = r_UKE.mul(alpha.softmax(-1).unsqueeze(-1)).sum(1).expand({num_units, num_experts});
    trace.tensors["selector_UKE"] = r_UKE.expand({num_units, k, num_experts});
    trace.probs_UE = weight_UE;
    return {units, num_experts, MixPlan{.weight_UE = weight_UE}};
  }

 private:
  DSelectKOptions options_;
  RouterShape shape_;
  int64_t num_bits_;
  at::Tensor z_weight_, z_bias_, alpha_weight_, alpha_bias_;  // [k m, D], [k m], [k, D], [k]
};

}  // namespace

std::shared_ptr<Router> make_dselect_k_router(const DSelectKOptions& options, const RouterShape& shape) {
  return std::make_shared<DSelectKRouter>(options, shape);
}

RouterEntry dselect_k_entry() {
  RouterEntry entry;
  entry.name = "dselect_k";
  entry.doc = "k selectors with smooth binary codes: differentiable everywhere, sparse in the end.";
  entry.defaults = [] { return config::AnyOptions(DSelectKOptions{}); };
  entry.caps = [](const config::AnyOptions&) { return Caps{.records = {"probs", "selector_UKE"}}; };
  entry.make = [](const config::AnyOptions& options, const RouterShape& shape) {
    return make_dselect_k_router(options.as<DSelectKOptions>(), shape);
  };
  return entry;
}

}  // namespace conclave::moe
