// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "../bfloat16.h"
#include "launch.h"

// Several values that are moved by one instruction. A kernel exists for packs of 16 bytes and for single
// values; the second serves widths and addresses that are not multiples of 16 bytes.
namespace conclave::kernels::cuda {

template <int kBytes>
struct Word;
template <>
struct Word<2> {
  using type = uint16_t;
};
template <>
struct Word<4> {
  using type = uint32_t;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

template <class T, int N>
struct Pack {
  T values[N];
};

template <int N, class T>
__device__ Pack<T, N> load_pack(const T* from) {
  using Raw = typename Word<static_cast<int>(sizeof(T)) * N>::type;
  const Raw raw = *reinterpret_cast<const Raw*>(from);
  Pack<T, N> pack;
  memcpy(&pack, &raw, sizeof raw);
  return pack;
}
template <int N, class T>
__device__ void store_pack(T* to, const Pack<T, N>& pack) {
  using Raw = typename Word<static_cast<int>(sizeof(T)) * N>::type;
  Raw raw;
  memcpy(&raw, &pack, sizeof raw);
  *reinterpret_cast<Raw*>(to) = raw;
}

// Values in a pack whose widest member is moved by 16 bytes.
template <class... T>
constexpr int kPackOf = 16 / std::max({static_cast<int>(sizeof(T))...});

// Whether rows of `width` values that start at these addresses are whole packs of N.
inline bool is_packed(int64_t width, int n, std::initializer_list<const void*> addresses) {
  if (width % n != 0) return false;
  for (const void* address : addresses) {
    if (reinterpret_cast<uintptr_t>(address) % 16 != 0) return false;
  }
  return true;
}

// call(size) with the largest pack that fits: N values, or 1.
template <int N, class Call>
Status packed(int64_t width, std::initializer_list<const void*> addresses, Call call) {
  if (is_packed(width, N, addresses)) return call(std::integral_constant<int, N>());
  return call(std::integral_constant<int, 1>());
}

// What one warp works on: `kSteps` times 32 packs of N values of a row.
template <int N, int kSteps>
struct Tile {
  int64_t row = 0, first = 0;
  static int64_t per_row(int64_t width) { return ceil_div(width, int64_t{N} * kWarp * kSteps); }
  static Grid grid(int64_t rows, int64_t width, int warps, Stream stream) {
    return {.blocks = ceil_div(rows * per_row(width), warps), .threads = warps * kWarp, .stream = stream};
  }
  // The tile of this warp; row is >= rows when there is none.
  __device__ static Tile mine(int64_t tiles_per_row, int warps) {
    const int64_t tile = static_cast<int64_t>(blockIdx.x) * warps + warp_in_block();
    const int64_t row = tile / tiles_per_row;
    return {row, ((tile - row * tiles_per_row) * kSteps * kWarp + lane()) * N};
  }
  __device__ int64_t at(int step) const { return first + static_cast<int64_t>(step) * kWarp * N; }
};

}  // namespace conclave::kernels::cuda
