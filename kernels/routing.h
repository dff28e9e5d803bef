// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "device/status.h"

// From scores to the order in which experts see their rows. Integers only, and ties are decided by the lowest
// index, so the result is a function of the input alone.
namespace conclave::kernels {

// The k largest of each row of scores [rows, num_experts], best first; ties go to the lowest index. A score
// that is NaN is never chosen: when fewer than k others exist, the remaining entries of chosen [rows, k] are
// -1.
template <class T>
void select_top_k(const T* scores, int32_t* chosen, int64_t num_experts, int64_t k, int64_t begin,
                  int64_t end);

// Stable counting sort of kept pairs by expert. expert [n], -1: no pair; kept [n] (0 or 1, null: all).
// Out: offsets [num_experts + 1]; pair_of_row [kept pairs], in the order (expert, pair); row_of_pair [n], -1
// for pairs that are not kept. Returns the number of kept pairs.
int64_t sort_pairs_by_expert(const int32_t* expert, const uint8_t* kept, int64_t n, int64_t num_experts,
                             int64_t* offsets, int32_t* pair_of_row, int32_t* row_of_pair);

// What the device sorts. A pair with expert -1 is none. `capacity`: rows that an expert may have; the later
// of its pairs are dropped.
struct PairSort {
  const int32_t* expert = nullptr;  // [n], -1 to num_experts - 1
  const uint8_t* kept = nullptr;    // [n] 0 or 1; null: all
  const int32_t* unit = nullptr;    // [n]; null: pair / pairs_per_unit
  int64_t n = 0;
  int64_t num_experts = 0;
  int64_t pairs_per_unit = 1;
  int64_t capacity = INT32_MAX;
  // Out, as above and in 32 bits. pair_of_row and unit_of_row hold n values, of which offsets[num_experts]
  // are written.
  int32_t* offsets = nullptr;  // [num_experts + 1]
  int32_t* pair_of_row = nullptr;
  int32_t* unit_of_row = nullptr;
  int32_t* row_of_pair = nullptr;  // [n]
};

// Plain-loop twin.
void sort_pairs_ref(const PairSort& sort);

namespace cuda {

constexpr int64_t kMaxSelectExperts = 1024;  // of select_top_k
constexpr int64_t kMaxSortExperts = 1024;    // of sort_pairs

template <class T>
Status select_top_k(const T* scores, int32_t* chosen, int64_t num_experts, int64_t k, int64_t rows,
                    Stream stream);

// Pairs are counted in blocks of kPairsPerBlock neighbours, the counts of all blocks are added up, and every
// pair finds its row from them: three launches that read `expert` twice, and no value goes to the host.
// block_counts: room for sort_pairs_counts(n, num_experts) numbers.
constexpr int64_t kPairsPerBlock = 2048;
int64_t sort_pairs_counts(int64_t n, int64_t num_experts);
Status sort_pairs(const PairSort& sort, int32_t* block_counts, Stream stream);

}  // namespace cuda

}  // namespace conclave::kernels
