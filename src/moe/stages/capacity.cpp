// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/stages/capacity.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/ops/functions.h"

namespace conclave::moe {

void CapacityOptions::fields(config::Fields& f) {
  const auto limited = [this] { return factor.has_value() || eval_factor.has_value(); };
  const std::string why = "capacity.factor and eval_factor are null (dropless)";
  f("factor", factor, "Expert buffer size in training, relative to an even share; null: dropless.")
      .positive();
  f("eval_factor", eval_factor, "The same in evaluation; null: dropless.").positive();
  f("min", min, "Smallest buffer, in units.").min(0).only_if(limited, why);
  f("order", order,
    {{"position", CapacityOrder::kPosition},
     {"prob", CapacityOrder::kProb},
     {"random", CapacityOrder::kRandom}},
    "Who keeps a place when an expert overflows; random holds in training, evaluation goes by position.")
      .only_if(limited, why);
  f("rounding", rounding,
    {{"ceil", CapacityRounding::kCeil},
     {"floor", CapacityRounding::kFloor},
     {"round", CapacityRounding::kRound}},
    "How a fractional buffer size becomes whole.")
      .only_if(limited, why);
  f("multiple_of", multiple_of, "The buffer size is raised to a multiple of this.")
      .min(1)
      .only_if(limited, why);
  f("renormalize_after_drop", renormalize_after_drop,
    "The weights of a token's kept experts sum to one again after drops.")
      .only_if(limited, why);
}

int64_t expert_capacity(const CapacityOptions& options, double factor, int64_t num_units, int64_t num_experts,
                        int64_t top_k) {
  if (num_units == 0) return 0;
  const double exact =
      static_cast<double>(top_k) * static_cast<double>(num_units) / static_cast<double>(num_experts) * factor;
  double rounded = std::ceil(exact);
  if (options.rounding == CapacityRounding::kFloor) rounded = std::floor(exact);
  if (options.rounding == CapacityRounding::kRound) rounded = std::nearbyint(exact);
  const auto whole = static_cast<int64_t>(std::min(rounded, static_cast<double>(num_units)));
  const int64_t wanted = std::min(num_units, std::max(options.min, whole)), m = options.multiple_of;
  const int64_t capacity = std::min(num_units, (wanted + m - 1) / m * m);
  CONCLAVE_CHECK(
      capacity >= 1,
      fmt::format("capacity leaves no slot: T = {} units, E = {} experts, k = {}, factor {} with this "
                  "rounding gives 0; raise capacity.factor or set capacity.min to 1 or more",
                  num_units, num_experts, top_k, factor));
  return capacity;
}

namespace {

// One uniform draw for every unit, on the host.
at::Tensor draws(const at::Tensor& global_id_U, const RandomKey& random, int layer) {
  auto draw_U = at::empty({global_id_U.numel()}, at::kDouble);
  double* out = draw_U.data_ptr<double>();
  const int64_t* id = global_id_U.const_data_ptr<int64_t>();
  for (int64_t u = 0; u < global_id_U.numel(); ++u) {
    out[u] = random.uniform(RandomStream::kCapacityOrder, static_cast<uint32_t>(layer),
                            static_cast<uint64_t>(id[u]));
  }
  return draw_U;
}

at::Tensor stable_order(const at::Tensor& key_N, bool descending = false) {
  return std::get<1>(key_N.sort(/*stable=*/true, 0, descending));
}

}  // namespace

at::Tensor keep_within_capacity(CapacityOrder order, int64_t capacity, int64_t num_experts,
                                const at::Tensor& unit_N, const at::Tensor& expert_N,
                                const at::Tensor& choice_N, const at::Tensor& weight_N,
                                const at::Tensor& global_id_U, const RandomKey& random, int layer) {
  at::Tensor queue;  // the pairs in the order in which they ask
  switch (order) {
    case CapacityOrder::kProb:
      queue = stable_order(weight_N.detach(), /*descending=*/true);
      break;
    case CapacityOrder::kPosition:
      queue = stable_order(choice_N);
      break;
    case CapacityOrder::kRandom:
      queue = stable_order(draws(global_id_U, random, layer).to(unit_N.device()).index_select(0, unit_N));
      queue = queue.index_select(0, stable_order(choice_N.index_select(0, queue)));
  }
  const auto expert = expert_N.index_select(0, queue);
  const auto sorted = ops::sort_pairs_by_expert(expert, {}, num_experts);
  const auto place = sorted.row_of_pair_N.sub(sorted.expert_offsets_E1.index_select(0, expert.clamp_min(0)));
  const auto kept = expert.ge(0).logical_and(place.lt(capacity)).to(at::kByte);
  return at::empty_like(kept).index_copy_(0, queue, kept);
}

}  // namespace conclave::moe
