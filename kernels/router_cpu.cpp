// SPDX-License-Identifier: Apache-2.0
#include "router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "routing.h"
#include "vector_math.h"

namespace conclave::kernels {

namespace {

template <class T>
constexpr T kNone = -std::numeric_limits<T>::infinity();

template <class T>
T log_sigmoid(T x) {
  return std::min(x, T(0)) - std::log1p(std::exp(-std::abs(x)));
}
template <class T>
T log_add(T a, T b) {
  const T most = std::max(a, b);
  return most == kNone<T> ? most : most + std::log1p(std::exp(std::min(a, b) - most));
}

// What is known of one token. A token without a finite logit has logits 0, so that losses stay finite.
template <class T>
struct Scored {
  std::vector<T> logit, score;
  T lse = 0;
  int32_t non_finite = 0;
  explicit Scored(int64_t num_experts)
      : logit(static_cast<size_t>(num_experts)), score(static_cast<size_t>(num_experts)) {}
};

template <class T>
CONCLAVE_CPU_VARIANTS void score_token(const RouterShape& s, const T* logits, Scored<T>& out) {
  T* __restrict logit = out.logit.data();
  T* __restrict score = out.score.data();
  const int64_t experts = s.num_experts;
  int32_t non_finite = 0;
  T most = kNone<T>;
  for (int64_t e = 0; e < experts; ++e) {
    const bool finite = std::abs(logits[e]) <= std::numeric_limits<T>::max();
    logit[e] = finite ? logits[e] : kNone<T>;
    non_finite += finite ? 0 : 1;
    most = logit[e] > most ? logit[e] : most;
  }
  out.non_finite = non_finite;
  const bool none = non_finite == experts;
  if (none) {
    most = 0;
    std::fill_n(logit, experts, T(0));
  }
  for (int64_t e = 0; e < experts; ++e) score[e] = fast_exp(logit[e] - most);
  if (non_finite > 0 && !none) {
    for (int64_t e = 0; e < experts; ++e) score[e] = logit[e] == kNone<T> ? T(0) : score[e];
  }
  const T sum = lane_sum<T>(experts, [&](int64_t e) { return score[e]; });
  out.lse = most + std::log(sum);
  if (!s.sigmoid) {
    for (int64_t e = 0; e < experts; ++e) score[e] /= sum;
    return;
  }
  for (int64_t e = 0; e < experts; ++e) score[e] = T(1) / (T(1) + fast_exp(-logit[e]));
  if (non_finite > 0 && !none) {
    for (int64_t e = 0; e < experts; ++e) score[e] = logit[e] == kNone<T> ? T(0) : score[e];
  }
}

// Selects a token's experts. What is not to be chosen is NaN in `by_`.
template <class T>
class Chooser {
 public:
  Chooser(const RouterShape& shape, const float* bias)
      : s_(shape),
        bias_(bias),
        biased_(bias && std::any_of(bias, bias + shape.num_experts, [](float b) { return b != 0; })),
        by_(static_cast<size_t>(shape.num_experts)),
        group_by_(static_cast<size_t>(shape.num_groups)),
        kept_(static_cast<size_t>(shape.topk_groups)) {}

  void choose(const T* logits, const Scored<T>& scored, int32_t* chosen) {
    for (size_t e = 0; e < by_.size(); ++e) {
      by_[e] = biased_ ? scored.score[e] + static_cast<T>(bias_[e]) : scored.logit[e];
      if (scored.non_finite > 0 && !std::isfinite(logits[e])) by_[e] = std::numeric_limits<T>::quiet_NaN();
    }
    if (s_.num_groups > 0) keep_groups(scored);
    select_top_k(by_.data(), chosen, s_.num_experts, s_.top_k, 0, 1);
  }

 private:
  void keep_groups(const Scored<T>& scored) {
    const int64_t size = s_.num_experts / s_.num_groups;
    for (int64_t g = 0; g < s_.num_groups; ++g)
      group_by_[static_cast<size_t>(g)] =
          worth(scored, static_cast<size_t>(g * size), static_cast<size_t>(size));
    select_top_k(group_by_.data(), kept_.data(), s_.num_groups, s_.topk_groups, 0, 1);
    for (int64_t g = 0; g < s_.num_groups; ++g) {
      if (std::find(kept_.begin(), kept_.end(), static_cast<int32_t>(g)) != kept_.end()) continue;
      std::fill_n(by_.begin() + g * size, size, std::numeric_limits<T>::quiet_NaN());
    }
  }

  // What the group of the experts [begin, begin + size) is compared by.
  T worth(const Scored<T>& scored, size_t begin, size_t size) const {
    T first = kNone<T>, second = kNone<T>;
    for (size_t e = begin; e < begin + size; ++e) {
      T value = s_.sigmoid && !biased_ ? log_sigmoid(scored.logit[e]) : by_[e];
      if (by_[e] != by_[e]) value = kNone<T>;
      second = value > first ? first : std::max(second, value);
      first = std::max(first, value);
    }
    return !s_.group_top2 ? first : biased_ ? first + second : log_add(first, second);
  }

  const RouterShape& s_;
  const float* bias_;
  bool biased_;
  std::vector<T> by_, group_by_;
  std::vector<int32_t> kept_;
};

// Weights of the choices before `scale`; 0 where there is none.
template <class T>
void weigh(const RouterShape& s, const Scored<T>& scored, const int32_t* chosen, T* weight) {
  T most = kNone<T>, sum = 0;
  for (int64_t k = 0; k < s.top_k; ++k) {
    weight[k] = 0;
    if (chosen[k] < 0) continue;
    const auto e = static_cast<size_t>(chosen[k]);
    weight[k] = !s.normalise ? scored.score[e] : s.sigmoid ? log_sigmoid(scored.logit[e]) : scored.logit[e];
    most = std::max(most, weight[k]);
  }
  if (!s.normalise) return;
  for (int64_t k = 0; k < s.top_k; ++k) {
    if (chosen[k] >= 0) sum += weight[k] = std::exp(weight[k] - most);
  }
  for (int64_t k = 0; k < s.top_k; ++k) {
    if (chosen[k] >= 0) weight[k] /= sum;
  }
}

// d_logit = the gradient through the scores, of d_score.
template <class T>
CONCLAVE_CPU_VARIANTS void through_scores(bool sigmoid, const T* __restrict score,
                                          const T* __restrict d_score, T* __restrict d_logit,
                                          int64_t experts) {
  if (sigmoid) {
    for (int64_t e = 0; e < experts; ++e) d_logit[e] += d_score[e] * score[e] * (T(1) - score[e]);
    return;
  }
  const T shared = lane_sum<T>(experts, [&](int64_t e) { return score[e] * d_score[e]; });
  for (int64_t e = 0; e < experts; ++e) d_logit[e] += score[e] * (d_score[e] - shared);
}

}  // namespace

template <class T>
void router_forward(const RouterForward<T>& r, int64_t begin, int64_t end) {
  const auto& s = r.shape;
  Chooser<T> chooser(s, r.bias);
  Scored<T> scored(s.num_experts);
  for (int64_t t = begin; t < end; ++t) {
    score_token(s, r.logits + t * s.num_experts, scored);
    *r.non_finite += scored.non_finite;
    int32_t* chosen = r.chosen + t * s.top_k;
    if (!r.repeats) chooser.choose(r.logits + t * s.num_experts, scored, chosen);
    T* weight = r.weight + t * s.top_k;
    weigh(s, scored, chosen, weight);
    for (int64_t k = 0; k < s.top_k; ++k) {
      weight[k] *= static_cast<T>(s.scale);
      if (chosen[k] >= 0) ++r.counts[chosen[k]];
    }
    if (r.scores) std::copy(scored.score.begin(), scored.score.end(), r.scores + t * s.num_experts);
    for (size_t e = 0; r.score_sums && e < scored.score.size(); ++e) r.score_sums[e] += scored.score[e];
    if (r.z_sum) *r.z_sum += scored.lse * scored.lse;
  }
}

template <class T>
void router_backward(const RouterBackward<T>& r, int64_t begin, int64_t end) {
  const auto& s = r.shape;
  Scored<T> scored(s.num_experts);
  std::vector<T> weight(static_cast<size_t>(s.top_k)), d_score(static_cast<size_t>(s.num_experts));
  for (int64_t t = begin; t < end; ++t) {
    const T* logits = r.logits + t * s.num_experts;
    T* d_logit = r.d_logits + t * s.num_experts;
    score_token(s, logits, scored);
    for (size_t e = 0; e < d_score.size(); ++e) {
      d_score[e] = r.d_score_sums ? r.d_score_sums[e] : T(0);
      if (r.d_scores) d_score[e] += r.d_scores[t * s.num_experts + static_cast<int64_t>(e)];
      d_logit[e] =
          r.d_z_sum == 0 ? T(0) : 2 * r.d_z_sum * scored.lse * std::exp(scored.logit[e] - scored.lse);
    }
    if (r.d_weight) {
      const int32_t* chosen = r.chosen + t * s.top_k;
      const T* d_weight = r.d_weight + t * s.top_k;
      weigh(s, scored, chosen, weight.data());
      T pull = 0;  // of normalisation
      for (size_t k = 0; k < weight.size(); ++k) pull += weight[k] * d_weight[k];
      for (size_t k = 0; k < weight.size(); ++k) {
        if (chosen[k] < 0) continue;
        const auto e = static_cast<size_t>(chosen[k]);
        const auto scale = static_cast<T>(s.scale);
        if (!s.normalise) d_score[e] += scale * d_weight[k];
        // The slope of the logarithm of a sigmoid is 1 - score.
        if (s.normalise)
          d_logit[e] +=
              scale * weight[k] * (d_weight[k] - pull) * (s.sigmoid ? T(1) - scored.score[e] : T(1));
      }
    }
    through_scores(s.sigmoid, scored.score.data(), d_score.data(), d_logit, s.num_experts);
    for (int64_t e = 0; scored.non_finite > 0 && e < s.num_experts; ++e) {
      if (!std::isfinite(logits[e])) d_logit[e] = 0;
    }
  }
}

template void router_forward<float>(const RouterForward<float>&, int64_t, int64_t);
template void router_forward<double>(const RouterForward<double>&, int64_t, int64_t);
template void router_backward<float>(const RouterBackward<float>&, int64_t, int64_t);
template void router_backward<double>(const RouterBackward<double>&, int64_t, int64_t);

}  // namespace conclave::kernels
