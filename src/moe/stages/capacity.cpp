// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/stages/capacity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "conclave/core/error.h"

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

at::Tensor keep_within_capacity(CapacityOrder order, int64_t capacity, int64_t num_experts,
                                const at::Tensor& unit_N, const at::Tensor& expert_N,
                                const at::Tensor& choice_N, const at::Tensor& weight_N,
                                const at::Tensor& global_id_U, const RandomKey& random, int layer) {
  const int64_t n = expert_N.numel();
  std::vector<int64_t> queue(static_cast<size_t>(n));
  std::iota(queue.begin(), queue.end(), int64_t{0});
  const int32_t* unit = unit_N.const_data_ptr<int32_t>();
  const int32_t* choice = choice_N.const_data_ptr<int32_t>();
  if (order == CapacityOrder::kProb) {
    const auto weights = weight_N.detach().to(at::kDouble).contiguous();
    const double* w = weights.const_data_ptr<double>();
    std::stable_sort(queue.begin(), queue.end(), [w](int64_t a, int64_t b) { return w[a] > w[b]; });
  } else {
    std::vector<double> priority;
    if (order == CapacityOrder::kRandom) {
      const int64_t* id = global_id_U.const_data_ptr<int64_t>();
      for (int64_t u = 0; u < global_id_U.numel(); ++u) {
        priority.push_back(random.uniform(RandomStream::kCapacityOrder, static_cast<uint32_t>(layer),
                                          static_cast<uint64_t>(id[u])));
      }
    }
    std::stable_sort(queue.begin(), queue.end(), [&](int64_t a, int64_t b) {
      if (choice[a] != choice[b]) return choice[a] < choice[b];
      return priority.empty() ? unit[a] < unit[b] : priority[unit[a]] < priority[unit[b]];
    });
  }
  auto kept = at::empty({n}, at::kByte);
  uint8_t* keep = kept.data_ptr<uint8_t>();
  const int32_t* expert = expert_N.const_data_ptr<int32_t>();
  std::vector<int64_t> taken(static_cast<size_t>(num_experts), 0);
  for (const int64_t pair : queue) keep[pair] = taken[expert[pair]]++ < capacity;
  return kept;
}

}  // namespace conclave::moe
