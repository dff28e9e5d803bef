// SPDX-License-Identifier: Apache-2.0
#include "conclave/core/random.h"

#include <cmath>
#include <numbers>

namespace conclave {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

uint64_t mix64(uint64_t value) {
  value += 0x9E3779B97F4A7C15;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

std::array<uint32_t, 4> RandomKey::block(RandomStream stream, uint32_t layer, uint64_t unit,
                                         uint32_t index) const {
  // Stream, layer and step are folded into the key; unit and index stay in the counter, where Philox
  // guarantees that no two of them collide.
  const uint64_t purpose = (static_cast<uint64_t>(stream) << 32) | layer;
  const uint64_t key = mix64(mix64(mix64(seed) ^ purpose) ^ step);
  return philox4x32({static_cast<uint32_t>(unit), static_cast<uint32_t>(unit >> 32), index, 0},
                    {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
}

namespace {
double to_unit_interval(uint32_t high, uint32_t low) {
  const uint64_t bits = (static_cast<uint64_t>(high) << 32) | low;
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}
}  // namespace

double RandomKey::uniform(RandomStream stream, uint32_t layer, uint64_t unit, uint32_t index) const {
  const auto words = block(stream, layer, unit, index);
  return to_unit_interval(words[0], words[1]);
}

double RandomKey::normal(RandomStream stream, uint32_t layer, uint64_t unit, uint32_t index) const {
  const auto words = block(stream, layer, unit, index);
  const double radius = std::sqrt(-2.0 * std::log1p(-to_unit_interval(words[0], words[1])));
  return radius * std::cos(2.0 * std::numbers::pi * to_unit_interval(words[2], words[3]));
}

}  // namespace conclave
