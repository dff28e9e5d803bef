// SPDX-License-Identifier: Apache-2.0
#include "routing.h"

#include <cstddef>
#include <vector>

namespace conclave::kernels {

template <class T>
void select_top_k(const T* scores, int32_t* chosen, int64_t num_experts, int64_t k, int64_t begin,
                  int64_t end) {
  std::vector<uint8_t> taken(static_cast<std::size_t>(num_experts));
  for (int64_t row = begin; row < end; ++row) {
    const T* row_scores = scores + row * num_experts;
    for (int64_t e = 0; e < num_experts; ++e) taken[e] = row_scores[e] != row_scores[e];  // NaN
    for (int64_t choice = 0; choice < k; ++choice) {
      int32_t best = -1;
      for (int32_t e = 0; e < num_experts; ++e) {
        if (!taken[e] && (best < 0 || row_scores[e] > row_scores[best])) best = e;
      }
      chosen[row * k + choice] = best;
      if (best >= 0) taken[best] = 1;
    }
  }
}

int64_t sort_pairs_by_expert(const int32_t* expert, const uint8_t* kept, int64_t n, int64_t num_experts,
                             int64_t* offsets, int32_t* pair_of_row, int32_t* row_of_pair) {
  const auto is_row = [&](int64_t pair) { return expert[pair] >= 0 && (!kept || kept[pair]); };
  for (int64_t e = 0; e <= num_experts; ++e) offsets[e] = 0;
  for (int64_t pair = 0; pair < n; ++pair) {
    if (is_row(pair)) ++offsets[expert[pair] + 1];
  }
  for (int64_t e = 0; e < num_experts; ++e) offsets[e + 1] += offsets[e];
  std::vector<int64_t> next(offsets, offsets + num_experts);
  for (int64_t pair = 0; pair < n; ++pair) {
    row_of_pair[pair] = -1;
    if (!is_row(pair)) continue;
    const int64_t row = next[expert[pair]]++;
    pair_of_row[row] = static_cast<int32_t>(pair);
    row_of_pair[pair] = static_cast<int32_t>(row);
  }
  return offsets[num_experts];
}

template void select_top_k<float>(const float*, int32_t*, int64_t, int64_t, int64_t, int64_t);
template void select_top_k<double>(const double*, int32_t*, int64_t, int64_t, int64_t, int64_t);

}  // namespace conclave::kernels
