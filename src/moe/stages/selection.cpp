// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/stages/selection.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "conclave/ops/functions.h"

namespace conclave::moe {

void GroupLimitOptions::fields(config::Fields& f) {
  f("num_groups", num_groups, "Equal groups that the experts lie in.").min(1).required().alias("n_group");
  f("topk_groups", topk_groups, "Groups that a token keeps.").min(1).required().alias("topk_group");
  f("group_score", group_score, {{"max", GroupScore::kMax}, {"top2_sum", GroupScore::kTop2Sum}},
    "A group is as good as its best expert, or as the sum of its two best.");
  f.check([this](config::Check& check) {
    if (topk_groups > num_groups) {
      check.error("topk_groups", fmt::format("{} of {} groups", topk_groups, num_groups),
                  fmt::format("use at most {}", num_groups));
    }
  });
}

at::Tensor outside_kept_groups(const GroupLimitOptions& options, const at::Tensor& scores_UE,
                               const at::Tensor& logarithms) {
  const int64_t groups = options.num_groups, size = scores_UE.size(1) / groups;
  const auto by_group_UGE = scores_UE.detach().reshape({-1, groups, size});
  at::Tensor score_UG;
  if (options.group_score == GroupScore::kMax) {
    score_UG = by_group_UGE.amax(-1);
  } else {
    const auto two = std::get<0>(at::topk(by_group_UGE, 2, -1));
    score_UG = at::where(logarithms, two.logsumexp(-1), two.sum(-1));
  }
  const auto kept_UG = ops::select_top_k(score_UG, options.topk_groups).to(at::kLong);
  return at::ones(score_UG.sizes(), kept_UG.options().dtype(at::kBool))
      .scatter(1, kept_UG, false)
      .repeat_interleave(size, 1);
}

void SecondExpertOptions::fields(config::Fields& f) {
  const std::vector<std::pair<std::string, SecondExpert>> names = {{"all", SecondExpert::kAll},
                                                                   {"random", SecondExpert::kRandom}};
  f("train", train, names, "Training: the second choice always counts, or by chance.");
  f("eval", eval, names, "The same in evaluation.");
  f("threshold", threshold, "random: the second choice counts with probability min(1, g2 / threshold).")
      .positive()
      .only_if([this] { return train == SecondExpert::kRandom || eval == SecondExpert::kRandom; },
               "the second choice always counts");
}

at::Tensor with_second_by_chance(const SecondExpertOptions& options, const at::Tensor& chosen_UK,
                                 const at::Tensor& normalised_UK, const UnitMap& units,
                                 const ForwardContext& context, int layer) {
  auto limit_U = at::empty({units.num_units}, at::kDouble);
  double* limit = limit_U.data_ptr<double>();
  const int64_t* id = units.global_id_U.const_data_ptr<int64_t>();
  for (int64_t u = 0; u < units.num_units; ++u) {
    limit[u] =
        options.threshold * context.random.uniform(RandomStream::kSecondExpert, static_cast<uint32_t>(layer),
                                                   static_cast<uint64_t>(id[u]));
  }
  const auto g2_U = normalised_UK.detach().select(1, 1).to(at::kDouble);
  const auto left_out_U = limit_U.to(g2_U.device()).ge(g2_U);
  auto chosen = chosen_UK.clone();
  chosen.select(1, 1).masked_fill_(left_out_U, -1);
  return chosen;
}

}  // namespace conclave::moe
