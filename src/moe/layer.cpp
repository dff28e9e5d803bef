// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/layer.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/ops/functions.h"
#include "conclave/ops/product.h"
#include "recorded_pass.h"

namespace conclave::moe {

SwiGluExperts::SwiGluExperts(const ExpertShare& share, int64_t width, int64_t inner, c10::ScalarType dtype) {
  const auto part = [](const char* name, int64_t begin, int64_t size) {
    return nn::ParamTag::Part{.logical_name = name, .dim = 0, .begin = begin, .size = size};
  };
  const auto tag = [&](std::vector<nn::ParamTag::Part> parts) {
    return nn::ParamTag{.role = nn::ParamRole::kExpert,
                        .parts = std::move(parts),
                        .expert_dim = 0,
                        .first_expert = share.first,
                        .expert_stride = share.stride,
                        .num_experts = share.num_experts,
                        .reduce_group = nn::ReduceGroup::kExpertData};
  };
  w13 = register_tagged(
      "w13", at::empty({share.here, 2 * inner, width}, dtype),
      tag({part("{expert}.gate_proj.weight", 0, inner), part("{expert}.up_proj.weight", inner, inner)}));
  w2 = register_tagged("w2", at::empty({share.here, width, inner}, dtype),
                       tag({part("{expert}.down_proj.weight", 0, width)}));
}
at::Tensor SwiGluExperts::run(const ops::Rows& rows, const at::Tensor& weights_A) {
  return ops::expert_mlp(rows, weights_A, w13, w2);
}

ForwardContext ForwardContext::plain(int64_t rows, Phase phase, c10::Device device) {
  ForwardContext context;
  context.phase = phase;
  context.tokens = {.num_rows = rows,
                    .num_units = rows,
                    .sequence_of_unit_U = at::zeros({rows}, at::TensorOptions(at::kLong).device(device)),
                    .group_of_unit_U = at::zeros({rows}, at::kLong),
                    .global_id_U = at::arange(rows, at::kLong),
                    .num_sequences = 1};
  return context;
}

MoeLayer::MoeLayer(const MoeLayerOptions& options, std::shared_ptr<Router> router)
    : options_(options),
      router_(std::move(router)),
      dispatcher_(!options.expert_parallel ? make_local_dispatcher()
                  : options.gather_tokens  ? make_all_gather_dispatcher(options.expert_parallel)
                                           : make_all_to_all_dispatcher(options.expert_parallel)) {
  CONCLAVE_CHECK(!options.cuda_graph || !options.expert_parallel,
                 "MoeLayer: cuda_graph records no exchange between ranks; leave one of the two out");
  if (options.cuda_graph) recorded_ = std::make_unique<RecordedPass>();
  register_module("router", router_);
  const int64_t ranks = options.expert_parallel ? options.expert_parallel->size() : 1;
  const int64_t rank = options.expert_parallel ? options.expert_parallel->rank() : 0;
  CONCLAVE_CHECK(
      options.num_experts % ranks == 0,
      fmt::format("MoeLayer: {} ranks cannot share {} experts evenly", ranks, options.num_experts));
  const int64_t here = options.num_experts / ranks;
  experts_ = register_module(
      "experts",
      std::make_shared<SwiGluExperts>(
          options.placement == ExpertPlacement::kStatic
              ? ExpertShare{.first = rank * here, .here = here, .num_experts = options.num_experts}
              : ExpertShare{.first = rank, .here = here, .stride = ranks, .num_experts = options.num_experts},
          options.width, options.expert_width, options.dtype));
  if (options.shared.width > 0) {
    shared_experts_ =
        register_module("shared_experts",
                        std::make_shared<nn::SwiGluMlp>(options.width, options.shared.width, options.dtype));
    if (options.shared.gate) {
      shared_gate_ = register_module("shared_expert_gate",
                                     std::make_shared<nn::Linear>(options.width, 1, options.dtype));
    }
  }
}

MoeLayer::~MoeLayer() = default;

at::Tensor MoeLayer::forward(const at::Tensor& x) {
  auto context = ForwardContext::plain(x.numel() / options_.width,
                                       is_training() ? Phase::kTrain : Phase::kEval, x.device());
  return run(x, context);
}

at::Tensor MoeLayer::run(const at::Tensor& x, ForwardContext& context) {
  CONCLAVE_CHECK(
      x.dim() >= 1 && x.size(-1) == options_.width,
      fmt::format("MoeLayer: expected [..., {}], got last dimension {}", options_.width, x.size(-1)));
  const auto x_RD = x.reshape({-1, options_.width});
  const auto& tokens = context.tokens;
  CONCLAVE_CHECK(
      tokens.num_rows == x_RD.size(0),
      fmt::format("MoeLayer: the context describes {} rows, x has {}", tokens.num_rows, x_RD.size(0)));
  if (tokens.row_of_unit_U.defined()) {
    const auto y_UD = run_units(x_RD.index_select(0, tokens.row_of_unit_U), context);
    return at::zeros_like(x_RD).index_copy(0, tokens.row_of_unit_U, y_UD).view(x.sizes());
  }
  if (recorded_ && context.phase == Phase::kTrain && context.replay.empty() && c10::GradMode::is_enabled()) {
    auto state = parameters();
    for (auto& buffer : buffers()) state.push_back(std::move(buffer));
    return recorded_
        ->run(x_RD, context, state,
              [this](const at::Tensor& x_UD, ForwardContext& c) { return run_units(x_UD, c); })
        .view(x.sizes());
  }
  return run_units(x_RD, context).view(x.sizes());
}

at::Tensor MoeLayer::run_units(const at::Tensor& x_UD, ForwardContext& context) {
  RouterTrace trace{.layer = options_.layer};
  if (!context.replay.empty()) trace.decisions = context.replay.at(context.traces.size()).repeated();
  try {
    trace.plan = router_->route(x_UD, context.tokens, context, trace);
  } catch (const Error& error) {
    if (error.kind() == Error::Kind::kDiverged && !trace.decisions.layout)
      dispatcher_->give_up(options_.num_experts);
    throw;
  }
  auto pairs = padded(placed(pairs_of(trace.plan)));
  auto& layout = trace.decisions.layout;
  if (!layout) layout = dispatcher_->plan(pairs);
  at::Tensor shared;  // computed while the ranks exchange their counts
  if (shared_experts_) {
    shared = shared_experts_->forward(x_UD);
    if (shared_gate_) shared = shared.mul(shared_gate_->forward(x_UD).sigmoid());
  }
  pairs = limited(pairs, context, trace);
  auto y_UD = execute(trace.plan, pairs, *layout, x_UD);
  if (shared.defined()) y_UD = y_UD.add(shared);
  if (options_.expert_parallel) trace.most_rank_rows = layout->most_rows();
  context.traces.push_back(std::move(trace));
  return y_UD;
}

// What the experts run, whatever the kind of plan: every (group, slot) is a unit with exactly one expert and
// weight 1.
SparsePlan MoeLayer::pairs_of(const RoutingPlan& plan) const {
  if (const auto* sparse = std::get_if<SparsePlan>(&plan.body)) return *sparse;
  if (const auto* mix = std::get_if<MixPlan>(&plan.body)) return to_sparse(*mix, plan.num_experts);
  const auto& slots = std::get<SlotPlan>(plan.body);
  const int64_t groups = slots.dispatch_GML.size(0), units = groups * slots.dispatch_GML.size(2);
  const auto int32 = slots.slot_expert_L.options();
  return make_sparse_plan(units, options_.num_experts, at::arange(units, int32),
                          slots.slot_expert_L.repeat({groups}), at::zeros({units}, int32),
                          at::ones({units}, experts_->w2.options()), {});
}

// The dispatchers number the experts by rank: 0 to E/P - 1 are those of rank 0.
SparsePlan MoeLayer::placed(SparsePlan pairs) const {
  if (!options_.expert_parallel || options_.placement == ExpertPlacement::kStatic) return pairs;
  const int64_t ranks = options_.expert_parallel->size(), here = options_.num_experts / ranks;
  const auto place = pairs.expert_N.remainder(ranks)
                         .mul(here)
                         .add(pairs.expert_N.div(ranks, "floor"))
                         .masked_fill(pairs.expert_N.lt(0), -1);
  auto renumbered = make_sparse_plan(pairs.unit_offsets_U1.size(0) - 1, options_.num_experts, pairs.unit_N,
                                     place.to(at::kInt), pairs.choice_N, pairs.weight_N,
                                     pairs.row_of_pair_N.ge(0).to(at::kByte));
  renumbered.capacity = pairs.capacity;
  return renumbered;
}

SparsePlan MoeLayer::padded(SparsePlan pairs) const {
  const bool pads = options_.expert_parallel && options_.pad_to_capacity && pairs.capacity > 0;
  return pads ? padded_to_capacity(pairs, options_.num_experts) : pairs;
}

// What is dropped for a rank's budget counts in the plan like what is dropped for an expert's capacity.
SparsePlan MoeLayer::limited(const SparsePlan& pairs, const ForwardContext& context, RouterTrace& trace) {
  if (!options_.expert_parallel || context.phase != Phase::kTrain) return pairs;
  auto kept = within_limits(pairs, *trace.decisions.layout, options_.limits, *options_.expert_parallel);
  if (auto* plan = std::get_if<SparsePlan>(&trace.plan.body);
      plan && options_.limits.on_overflow == OnOverflow::kDrop) {
    *plan = make_sparse_plan(plan->unit_offsets_U1.size(0) - 1, options_.num_experts, plan->unit_N,
                             plan->expert_N, plan->choice_N, plan->weight_N,
                             kept.row_of_pair_N.ge(0).to(at::kByte));
  }
  return kept;
}

at::Tensor MoeLayer::execute(const RoutingPlan& plan, const SparsePlan& pairs, DispatchLayout& layout,
                             const at::Tensor& x_UD) {
  if (const auto* slots = std::get_if<SlotPlan>(&plan.body)) return run_slots(*slots, pairs, layout, x_UD);
  return run_experts(pairs, layout, x_UD);
}

at::Tensor MoeLayer::run_experts(const SparsePlan& pairs, DispatchLayout& layout, const at::Tensor& x_UD) {
  const auto weights_A = ops::values_of_rows(pairs.weight_N, pairs.pair_of_row_A, pairs.row_of_pair_N)
                             .to(experts_->w2.scalar_type());
  const auto dispatched = dispatcher_->dispatch(pairs, layout, x_UD, weights_A);
  return dispatcher_->combine(pairs, layout, dispatched,
                              experts_->run(dispatched.rows, dispatched.weights_A));
}

at::Tensor MoeLayer::run_slots(const SlotPlan& plan, const SparsePlan& pairs, DispatchLayout& layout,
                               const at::Tensor& x_UD) {
  const int64_t groups = plan.dispatch_GML.size(0), members = plan.dispatch_GML.size(1),
                slots = plan.dispatch_GML.size(2), width = x_UD.size(1);
  const auto unit = plan.unit_of_group_GM.reshape({-1});
  const auto dtype = ops::product_dtype(x_UD);
  const auto present = unit.ge(0).to(dtype).unsqueeze(1);
  const auto x_GMD =
      x_UD.index_select(0, unit.clamp_min(0)).to(dtype).mul(present).view({groups, members, width});
  const auto mixed_GLD = at::bmm(plan.dispatch_GML.to(dtype).transpose(1, 2), x_GMD).to(x_UD.scalar_type());

  const auto y_GLD = run_experts(pairs, layout, mixed_GLD.reshape({-1, width})).view({groups, slots, width});
  const auto y_GMD =
      at::bmm(plan.combine_GML.to(dtype), y_GLD.to(dtype)).to(x_UD.scalar_type()).reshape({-1, width});
  return y_GMD.index_select(0, plan.place_of_unit_U);
}

}  // namespace conclave::moe
