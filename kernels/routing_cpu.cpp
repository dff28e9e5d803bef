// SPDX-License-Identifier: Apache-2.0
#include "routing.h"

#include <cstddef>
#include <vector>

namespace conclave::kernels {

template <class T>
void select_top_k(const T* scores, int32_t* chosen, int64_t num_experts, int64_t k, int64_t begin,
                  int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* of = scores + row * num_experts;
    int32_t last = -1;
    for (int64_t choice = 0; choice < k; ++choice) {
      // The best of those behind the last one. No comparison holds for NaN.
      int32_t best = -1;
      for (int32_t e = 0; e < num_experts; ++e) {
        const bool left = last < 0 ? of[e] == of[e] : of[e] < of[last] || (of[e] == of[last] && e > last);
        if (left && (best < 0 || of[e] > of[best])) best = e;
      }
      chosen[row * k + choice] = best;
      if (best < 0) {
        for (int64_t rest = choice; rest < k; ++rest) chosen[row * k + rest] = -1;
        break;
      }
      last = best;
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
