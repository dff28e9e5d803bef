// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>

namespace conclave {

// What a stream of random numbers is for. Part of the key, so that two uses never share numbers.
// The values are written into checkpoints' behaviour: append, never renumber.
enum class RandomStream : uint32_t {
  kInit = 0,
  kRouterJitter = 1,
  kRouterNoise = 2,
  kCapacityOrder = 3,
  kSampler = 4,
  kMasking = 5,
  kSampling = 6,
  kSecondExpert = 7,
};

// Counter-based generator (Philox4x32-10; Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
// 2011). A number is a pure function of (seed, stream, layer, step, unit, index): it depends neither on the
// order of calls nor on the number of ranks, threads or micro-batches. `unit` is a global id (of a token, a
// document, a parameter).
struct RandomKey {
  uint64_t seed = 0;
  uint64_t step = 0;

  std::array<uint32_t, 4> block(RandomStream stream, uint32_t layer, uint64_t unit, uint32_t index) const;
  // Uniform in [0, 1), 53 bits.
  double uniform(RandomStream stream, uint32_t layer, uint64_t unit, uint32_t index = 0) const;
  // Standard normal (Box-Muller).
  double normal(RandomStream stream, uint32_t layer, uint64_t unit, uint32_t index = 0) const;
};

// The raw bijection, exposed for the published test vectors.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A strong 64-bit mix (SplitMix64 finaliser), for deriving seeds.
uint64_t mix64(uint64_t value);

}  // namespace conclave
