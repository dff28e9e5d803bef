// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>

#include "conclave/moe/routers/group_gates.h"

namespace conclave::moe {

void SoftOptions::fields(config::Fields& f) {
  f("slots_per_expert", slots_per_expert, "Mixtures per expert and group.").min(1);
  f("normalize", normalize, "Unit-norm inputs and slot vectors, with one learned scale.");
}

namespace {

// x / sqrt(sum x^2 + 1e-6) along `dim`: shortens vectors of norm below about 1e-2, which a trained model has
// not.
at::Tensor unit_norm(const at::Tensor& x, int64_t dim) {
  return x.div(x.square().sum(dim, true).add(1e-6).sqrt());
}

// unit_of_group_GM and place_of_unit_U of a plan, on the host. Groups are runs of equal group_of_unit.
SlotPlan grouped_units(const at::Tensor& group_of_unit_U) {
  const int64_t* group = group_of_unit_U.const_data_ptr<int64_t>();
  std::vector<int64_t> begins;
  for (int64_t u = 0; u < group_of_unit_U.numel(); ++u) {
    if (u == 0 || group[u] != group[u - 1]) begins.push_back(u);
  }
  begins.push_back(group_of_unit_U.numel());
  int64_t largest = 0;
  for (size_t g = 0; g + 1 < begins.size(); ++g) largest = std::max(largest, begins[g + 1] - begins[g]);
  auto units = at::full({static_cast<int64_t>(begins.size()) - 1, largest}, -1, at::kLong);
  auto places = at::empty_like(group_of_unit_U);
  int64_t* out = units.mutable_data_ptr<int64_t>();
  int64_t* place = places.mutable_data_ptr<int64_t>();
  for (size_t g = 0; g + 1 < begins.size(); ++g) {
    for (int64_t u = begins[g]; u < begins[g + 1]; ++u) {
      place[u] = static_cast<int64_t>(g) * largest + u - begins[g];
      out[place[u]] = u;
    }
  }
  return {.unit_of_group_GM = units, .place_of_unit_U = places};
}

class SoftRouter : public Router {
 public:
  SoftRouter(const SoftOptions& options, const RouterShape& shape) : options_(options), shape_(shape) {
    const int64_t slots = shape.num_experts * options.slots_per_expert;
    slots_LD_ = register_tagged("slots", at::empty({slots, shape.width}, shape.dtype),
                                {.role = nn::ParamRole::kRouter});
    if (options.normalize) {
      // Starts at 1, as norms do.
      scale_ = register_tagged("scale", at::ones({1}, shape.dtype), {.role = nn::ParamRole::kNorm});
    }
  }

  RoutingPlan route(const at::Tensor& x_UD, const UnitMap& units, const ForwardContext&,
                    RouterTrace& trace) override {
    const auto x = x_UD.to(shape_.dtype);
    const auto logits_UL = options_.normalize
                               ? unit_norm(x, -1).matmul(unit_norm(slots_LD_, -1).mul(scale_).t())
                               : x.matmul(slots_LD_.t());
    trace.tensors["slot_logits"] = logits_UL;

    auto plan = grouped_units(units.group_of_unit_U);
    plan.unit_of_group_GM = plan.unit_of_group_GM.to(x.device());
    plan.place_of_unit_U = plan.place_of_unit_U.to(x.device());
    const int64_t groups = plan.unit_of_group_GM.size(0), members = plan.unit_of_group_GM.size(1);
    const auto present_GM1 = plan.unit_of_group_GM.ge(0).unsqueeze(-1);
    const auto logits_GML = logits_UL.index_select(0, plan.unit_of_group_GM.clamp_min(0).reshape({-1}))
                                .view({groups, members, logits_UL.size(1)});
    plan.dispatch_GML = logits_GML.masked_fill(present_GM1.logical_not(), -INFINITY).softmax(1);
    plan.combine_GML = logits_GML.softmax(2).mul(present_GM1);
    plan.slot_expert_L = at::arange(shape_.num_experts, x.options().dtype(at::kInt))
                             .repeat_interleave(options_.slots_per_expert);
    return {units, shape_.num_experts, plan};
  }

 private:
  SoftOptions options_;
  RouterShape shape_;
  at::Tensor slots_LD_, scale_;
};

}  // namespace

std::shared_ptr<Router> make_soft_router(const SoftOptions& options, const RouterShape& shape) {
  return std::make_shared<SoftRouter>(options, shape);
}

RouterEntry soft_entry() {
  RouterEntry entry;
  entry.name = "soft";
  entry.doc = "Every slot is a mixture of a document's tokens, every token a mixture of slots.";
  entry.defaults = [] { return config::AnyOptions(SoftOptions{}); };
  entry.caps = [](const config::AnyOptions&) {
    return Caps{.causal = false, .whole_group = true, .records = {"slot_logits"}};
  };
  entry.make = [](const config::AnyOptions& options, const RouterShape& shape) {
    return make_soft_router(options.as<SoftOptions>(), shape);
  };
  return entry;
}

}  // namespace conclave::moe
