// SPDX-License-Identifier: Apache-2.0
#include "routing.h"

#include "device/select.h"

namespace conclave::kernels::cuda {

namespace {

constexpr int kPairsPerWarp = static_cast<int>(kPairsPerBlock) / kWarps;
constexpr int kScanThreads = 1024;

// One warp a row.
template <int V>
__global__ void __launch_bounds__(kThreads)
    select_kernel(const float* scores, int32_t* chosen, int64_t num_experts, int64_t k, int64_t rows) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp_in_block();
  if (row >= rows) return;
  uint64_t keys[V];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int e = lane() + kWarp * i;
    keys[i] = e < num_experts ? key_of(scores[row * num_experts + e], e) : kNoKey;
  }
  for (int64_t choice = 0; choice < k; ++choice) {
    const int best = take_largest(keys);
    if (lane() == 0) chosen[row * k + choice] = best;
  }
}

// The expert of a pair that may get a row, else -1.
__device__ inline int wanted(const PairSort& s, int64_t pair) {
  if (pair >= s.n || (s.kept && !s.kept[pair])) return -1;
  return s.expert[pair];
}

// block_counts[e, b]: pairs of expert e in block b.
__global__ void __launch_bounds__(kThreads) count_kernel(PairSort s, int32_t* block_counts) {
  int32_t* counts = dynamic_shared<int32_t>();  // [num_experts]
  for (int e = static_cast<int>(threadIdx.x); e < s.num_experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < kPairsPerBlock; i += kThreads) {
    const int e = wanted(s, blockIdx.x * kPairsPerBlock + i);
    if (e >= 0) atomicAdd(&counts[e], 1);
  }
  __syncthreads();
  for (int64_t e = threadIdx.x; e < s.num_experts; e += kThreads)
    block_counts[e * gridDim.x + blockIdx.x] = counts[e];
}

// Sum of the lanes before this one.
__device__ inline int32_t sum_before(int32_t value) {
  int32_t sum = value;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, sum, distance);
    if (lane() >= distance) sum += other;
  }
  return sum - value;
}

// One block. Turns each expert's counts into sums of the blocks before, and writes the experts' offsets.
__global__ void __launch_bounds__(kScanThreads)
    scan_kernel(PairSort s, int32_t* block_counts, int64_t blocks) {
  __shared__ int32_t rows_of[kMaxSortExperts];
  for (int64_t e = warp_in_block(); e < s.num_experts; e += kScanThreads / kWarp) {
    int32_t* counts = block_counts + e * blocks;
    int32_t sum = 0;
    for (int64_t first = 0; first < blocks; first += kWarp) {
      const int64_t b = first + lane();
      const int32_t count = b < blocks ? counts[b] : 0;
      const int32_t before = sum_before(count);
      if (b < blocks) counts[b] = sum + before;
      sum += __shfl_sync(kAllLanes, before + count, kWarp - 1);
    }
    if (lane() == 0) rows_of[e] = sum < s.capacity ? sum : static_cast<int32_t>(s.capacity);
  }
  __syncthreads();
  if (warp_in_block() != 0) return;
  int32_t sum = 0;
  for (int64_t first = 0; first < s.num_experts; first += kWarp) {
    const int64_t e = first + lane();
    const int32_t rows = e < s.num_experts ? rows_of[e] : 0;
    const int32_t before = sum_before(rows);
    if (e < s.num_experts) s.offsets[e] = sum + before;
    sum += __shfl_sync(kAllLanes, before + rows, kWarp - 1);
  }
  if (lane() == 0) s.offsets[s.num_experts] = sum;
}

// Every warp has kPairsPerWarp neighbours. It counts them by expert, the warps of the block add up, and it
// goes through them again with the number of pairs that stand before them.
__global__ void __launch_bounds__(kThreads) place_kernel(PairSort s, const int32_t* block_counts) {
  int32_t* before = dynamic_shared<int32_t>();  // [kWarps, num_experts]
  int32_t* mine = before + warp_in_block() * s.num_experts;
  const int64_t first = blockIdx.x * kPairsPerBlock + int64_t{warp_in_block()} * kPairsPerWarp;
  for (int64_t i = threadIdx.x; i < kWarps * s.num_experts; i += kThreads) before[i] = 0;
  __syncthreads();
  for (int i = lane(); i < kPairsPerWarp; i += kWarp) {
    const int e = wanted(s, first + i);
    if (e >= 0) atomicAdd(&mine[e], 1);
  }
  __syncthreads();
  for (int64_t e = threadIdx.x; e < s.num_experts; e += kThreads) {
    int32_t sum = block_counts[e * gridDim.x + blockIdx.x];
    for (int w = 0; w < kWarps; ++w) {
      const int32_t count = before[w * s.num_experts + e];
      before[w * s.num_experts + e] = sum;
      sum += count;
    }
  }
  __syncthreads();
  for (int i = lane(); i < kPairsPerWarp; i += kWarp) {
    const int64_t pair = first + i;
    const int e = wanted(s, pair);
    const unsigned same = __match_any_sync(kAllLanes, e);
    const int rank = __popc(same & ((1u << lane()) - 1));
    const int32_t place = e >= 0 ? mine[e] + rank : 0;
    __syncwarp();
    if (e >= 0 && rank == 0) mine[e] += __popc(same);
    __syncwarp();
    if (pair >= s.n) continue;
    if (e < 0 || place >= s.capacity) {
      s.row_of_pair[pair] = -1;
      continue;
    }
    const int32_t row = s.offsets[e] + place;
    s.row_of_pair[pair] = row;
    s.pair_of_row[row] = static_cast<int32_t>(pair);
    s.unit_of_row[row] = s.unit ? s.unit[pair] : static_cast<int32_t>(pair / s.pairs_per_unit);
  }
}

}  // namespace

template <>
Status select_top_k<float>(const float* scores, int32_t* chosen, int64_t num_experts, int64_t k, int64_t rows,
                           Stream stream) {
  const Grid grid{.blocks = ceil_div(rows, kWarps), .threads = kThreads, .stream = stream};
  return with_values_per_lane<kMaxSelectExperts>(num_experts, [&]<int V>(std::integral_constant<int, V>) {
    return launch(grid, select_kernel<V>, scores, chosen, num_experts, k, rows);
  });
}

int64_t sort_pairs_counts(int64_t n, int64_t num_experts) {
  return ceil_div(n, kPairsPerBlock) * num_experts;
}

Status sort_pairs(const PairSort& sort, int32_t* block_counts, Stream stream) {
  if (sort.num_experts < 1 || sort.num_experts > kMaxSortExperts || sort.n >= INT32_MAX)
    return Status::kInvalid;
  const int64_t blocks = ceil_div(sort.n, kPairsPerBlock);
  const size_t row_bytes = static_cast<size_t>(sort.num_experts) * sizeof(int32_t);
  auto status = launch({.blocks = blocks, .threads = kThreads, .shared_bytes = row_bytes, .stream = stream},
                       count_kernel, sort, block_counts);
  if (status != Status::kOk) return status;
  status = launch({.blocks = 1, .threads = kScanThreads, .stream = stream}, scan_kernel, sort, block_counts,
                  blocks);
  if (status != Status::kOk) return status;
  return launch({.blocks = blocks, .threads = kThreads, .shared_bytes = kWarps * row_bytes, .stream = stream},
                place_kernel, sort, block_counts);
}

}  // namespace conclave::kernels::cuda
