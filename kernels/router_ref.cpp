// SPDX-License-Identifier: Apache-2.0
#include "router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace conclave::kernels {

namespace {

using Row = std::vector<double>;
constexpr double kLowest = -std::numeric_limits<double>::infinity();

double log_sum_exp(const Row& values) {
  const double most = *std::max_element(values.begin(), values.end());
  if (most == kLowest) return kLowest;
  double sum = 0;
  for (const double v : values) sum += std::exp(v - most);
  return most + std::log(sum);
}

// Of one token. A token without a finite logit has logits 0, so that losses stay finite.
struct Scores {
  Row logit, relative, score;  // relative: logarithm of the score up to a constant
  std::vector<bool> masked;
  double lse = 0;
};
template <class T>
Scores scores_of(const RouterShape& s, const T* logits) {
  Scores out;
  for (int64_t e = 0; e < s.num_experts; ++e) {
    out.masked.push_back(!std::isfinite(logits[e]));
    out.logit.push_back(out.masked.back() ? kLowest : static_cast<double>(logits[e]));
  }
  out.lse = log_sum_exp(out.logit);
  if (out.lse == kLowest) {
    out.logit.assign(out.logit.size(), 0.0);
    out.lse = log_sum_exp(out.logit);
  }
  for (const double l : out.logit) {
    out.relative.push_back(s.sigmoid ? -std::log1p(std::exp(-l)) : l);
    out.score.push_back(std::exp(s.sigmoid ? out.relative.back() : l - out.lse));
  }
  return out;
}

// The largest of `by` that are allowed, best first, ties to the lowest index; -1 where there is none.
template <class T>
std::vector<int> largest(const std::vector<T>& by, std::vector<bool> allowed, int64_t k) {
  std::vector<int> out;
  for (int64_t choice = 0; choice < k; ++choice) {
    int best = -1;
    for (int e = 0; e < static_cast<int>(by.size()); ++e) {
      if (allowed[static_cast<size_t>(e)] &&
          (best < 0 || by[static_cast<size_t>(e)] > by[static_cast<size_t>(best)]))
        best = e;
    }
    out.push_back(best);
    if (best >= 0) allowed[static_cast<size_t>(best)] = false;
  }
  return out;
}

template <class T>
std::vector<int> choose(const RouterShape& s, const Scores& scores, const float* bias) {
  if (bias && std::all_of(bias, bias + s.num_experts, [](float b) { return b == 0; })) bias = nullptr;
  std::vector<T> by;
  std::vector<bool> allowed;
  for (size_t e = 0; e < scores.logit.size(); ++e) {
    by.push_back(bias ? static_cast<T>(scores.score[e]) + bias[e] : static_cast<T>(scores.logit[e]));
    allowed.push_back(!scores.masked[e]);
  }
  if (s.num_groups > 0) {
    const auto size = static_cast<size_t>(s.num_experts / s.num_groups);
    std::vector<T> group_by;
    for (int64_t g = 0; g < s.num_groups; ++g) {
      Row values;
      for (size_t e = static_cast<size_t>(g) * size; e < (static_cast<size_t>(g) + 1) * size; ++e) {
        const double value = bias ? by[e] : scores.relative[e];
        values.push_back(scores.masked[e] ? kLowest : value);
      }
      std::sort(values.rbegin(), values.rend());
      values.resize(s.group_top2 ? 2 : 1);
      const double two = s.group_top2 && bias ? values[0] + values[1] : log_sum_exp(values);
      group_by.push_back(static_cast<T>(two));
    }
    const auto kept = largest(group_by, std::vector<bool>(group_by.size(), true), s.topk_groups);
    for (size_t e = 0; e < allowed.size(); ++e) {
      if (std::find(kept.begin(), kept.end(), static_cast<int>(e / size)) == kept.end()) allowed[e] = false;
    }
  }
  return largest(by, allowed, s.top_k);
}

// Weights of the choices before `scale`; 0 where there is none.
Row weights_of(const RouterShape& s, const Scores& scores, const int32_t* chosen) {
  Row relative, weight;
  for (int64_t k = 0; k < s.top_k; ++k)
    relative.push_back(chosen[k] < 0 ? kLowest : scores.relative[static_cast<size_t>(chosen[k])]);
  const double all = log_sum_exp(relative);
  for (int64_t k = 0; k < s.top_k; ++k) {
    const auto score = chosen[k] < 0 ? 0.0 : scores.score[static_cast<size_t>(chosen[k])];
    weight.push_back(!s.normalise    ? score
                     : chosen[k] < 0 ? 0.0
                                     : std::exp(relative[static_cast<size_t>(k)] - all));
  }
  return weight;
}

}  // namespace

template <class T>
void router_forward_ref(const RouterForward<T>& r) {
  const auto& s = r.shape;
  Row score_sums(static_cast<size_t>(s.num_experts), 0.0);
  double z_sum = 0;
  std::fill_n(r.counts, s.num_experts, 0);
  *r.non_finite = 0;
  for (int64_t t = 0; t < s.tokens; ++t) {
    const auto scores = scores_of(s, r.logits + t * s.num_experts);
    auto chosen = std::vector<int>(r.chosen + t * s.top_k, r.chosen + (t + 1) * s.top_k);
    if (!r.repeats) chosen = choose<T>(s, scores, r.bias);
    std::copy(chosen.begin(), chosen.end(), r.chosen + t * s.top_k);
    const auto weight = weights_of(s, scores, r.chosen + t * s.top_k);
    for (int64_t k = 0; k < s.top_k; ++k) {
      r.weight[t * s.top_k + k] = static_cast<T>(s.scale * weight[static_cast<size_t>(k)]);
      if (chosen[static_cast<size_t>(k)] >= 0) ++r.counts[chosen[static_cast<size_t>(k)]];
    }
    for (size_t e = 0; e < score_sums.size(); ++e) {
      score_sums[e] += scores.score[e];
      if (r.scores) r.scores[t * s.num_experts + static_cast<int64_t>(e)] = static_cast<T>(scores.score[e]);
      *r.non_finite += scores.masked[e];
    }
    z_sum += scores.lse * scores.lse;
  }
  for (size_t e = 0; r.score_sums && e < score_sums.size(); ++e)
    r.score_sums[e] = static_cast<T>(score_sums[e]);
  if (r.z_sum) *r.z_sum = static_cast<T>(z_sum);
}

template <class T>
void router_backward_ref(const RouterBackward<T>& r) {
  const auto& s = r.shape;
  const auto experts = static_cast<size_t>(s.num_experts);
  for (int64_t t = 0; t < s.tokens; ++t) {
    const auto scores = scores_of(s, r.logits + t * s.num_experts);
    const int32_t* chosen = r.chosen + t * s.top_k;
    const auto weight = weights_of(s, scores, chosen);
    Row d_score(experts, 0.0), d_logit(experts, 0.0);
    double pull = 0;  // of normalisation
    for (int64_t k = 0; r.d_weight && k < s.top_k; ++k)
      pull += weight[static_cast<size_t>(k)] * r.d_weight[t * s.top_k + k];
    for (int64_t k = 0; r.d_weight && k < s.top_k; ++k) {
      if (chosen[k] < 0) continue;
      const auto e = static_cast<size_t>(chosen[k]);
      const double d = r.d_weight[t * s.top_k + k];
      if (s.normalise) {
        const double slope = s.sigmoid ? 1.0 - scores.score[e] : 1.0;  // of the relative score
        d_logit[e] = s.scale * weight[static_cast<size_t>(k)] * (d - pull) * slope;
      } else {
        d_score[e] = s.scale * d;
      }
    }
    double shared = 0;
    for (size_t e = 0; e < experts; ++e) {
      if (r.d_score_sums) d_score[e] += r.d_score_sums[e];
      if (r.d_scores) d_score[e] += r.d_scores[t * s.num_experts + static_cast<int64_t>(e)];
      shared += scores.score[e] * d_score[e];
    }
    for (size_t e = 0; e < experts; ++e) {
      const double score = scores.score[e];
      d_logit[e] += s.sigmoid ? d_score[e] * score * (1.0 - score) : score * (d_score[e] - shared);
      d_logit[e] += 2.0 * r.d_z_sum * scores.lse * std::exp(scores.logit[e] - scores.lse);
      r.d_logits[t * s.num_experts + static_cast<int64_t>(e)] =
          scores.masked[e] ? T(0) : static_cast<T>(d_logit[e]);
    }
  }
}

template void router_forward_ref<float>(const RouterForward<float>&);
template void router_forward_ref<double>(const RouterForward<double>&);
template void router_backward_ref<float>(const RouterBackward<float>&);
template void router_backward_ref<double>(const RouterBackward<double>&);

}  // namespace conclave::kernels
