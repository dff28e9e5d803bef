// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

namespace conclave::kernels {

// The k largest of each row of scores [rows, num_experts], best first; ties go to the lowest index. A score
// that is NaN is never chosen: when fewer than k others exist, the remaining entries of chosen [rows, k] are
// -1.
template <class T>
void select_top_k(const T* scores, int32_t* chosen, int64_t num_experts, int64_t k, int64_t begin,
                  int64_t end);

// Stable counting sort of kept pairs by expert. expert [n]; kept [n] (0 or 1, null: all).
// Out: offsets [num_experts + 1]; pair_of_row [kept pairs], in the order (expert, pair); row_of_pair [n], -1
// for pairs that are not kept. Returns the number of kept pairs.
int64_t sort_pairs_by_expert(const int32_t* expert, const uint8_t* kept, int64_t n, int64_t num_experts,
                             int64_t* offsets, int32_t* pair_of_row, int32_t* row_of_pair);

}  // namespace conclave::kernels
