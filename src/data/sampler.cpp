// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/sampler.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/random.h"

namespace conclave::data {

namespace {

constexpr int kFeistelRounds = 6;

// The key of one epoch's order of one source.
uint64_t epoch_key(uint64_t seed, size_t source, int64_t epoch) {
  const auto words = RandomKey{.seed = seed}.block(RandomStream::kSampler, static_cast<uint32_t>(source),
                                                   static_cast<uint64_t>(epoch), 0);
  return (static_cast<uint64_t>(words[0]) << 32) | words[1];
}

}  // namespace

Permutation::Permutation(uint64_t size, uint64_t key) : size_(size), key_(key) {
  CONCLAVE_CHECK(size > 0 && size <= uint64_t{1} << 62, fmt::format("a permutation of {}", size));
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(size - 1)) + 1) / 2);
}

uint64_t Permutation::encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_, right = value & mask;
  for (uint64_t round = 0; round < kFeistelRounds; ++round) {
    const uint64_t mixed = mix64(mix64(key_ + round) ^ right) & mask;
    left ^= mixed;
    std::swap(left, right);
  }
  return (left << half_bits_) | right;
}

uint64_t Permutation::operator()(uint64_t index) const {
  CONCLAVE_CHECK(index < size_, fmt::format("index {} of a permutation of {}", index, size_));
  // The walk ends: encrypt is a bijection of a finite set, and its cycle comes back to `index`, which is
  // inside.
  do index = encrypt(index);
  while (index >= size_);
  return index;
}

Sampler::Sampler(std::vector<SamplerSource> sources, uint64_t seed, bool shuffle)
    : sources_(std::move(sources)), seed_(seed), shuffle_(shuffle) {
  CONCLAVE_CHECK(!sources_.empty(), "a sampler needs a source");
  double total = 0;
  for (const auto& source : sources_) {
    CONCLAVE_CHECK(source.num_windows > 0, "a source without a window");
    CONCLAVE_CHECK(source.weight > 0, fmt::format("weight {} of a source is not positive", source.weight));
    total += source.weight;
  }
  for (auto& source : sources_) source.weight /= total;
  state_.counts.assign(sources_.size(), 0);
}

size_t Sampler::choose() const {
  const auto taken = static_cast<double>(std::max<int64_t>(state_.consumed_samples, 1));
  size_t best = 0;
  double best_lack = -1;
  for (size_t s = 0; s < sources_.size(); ++s) {
    const double lack = sources_[s].weight * taken - static_cast<double>(state_.counts[s]);
    if (s == 0 || lack > best_lack) {
      best = s;
      best_lack = lack;
    }
  }
  return best;
}

SampleRef Sampler::next() {
  const size_t s = choose();
  const int64_t size = sources_[s].num_windows;
  const int64_t taken = state_.counts[s]++;
  SampleRef sample = {.index = state_.consumed_samples++,
                      .source = static_cast<int32_t>(s),
                      .epoch = taken / size,
                      .window = taken % size};
  if (shuffle_) {
    const Permutation order(static_cast<uint64_t>(size), epoch_key(seed_, s, sample.epoch));
    sample.window = static_cast<int64_t>(order(static_cast<uint64_t>(sample.window)));
  }
  return sample;
}

void Sampler::skip(int64_t num_samples) {
  for (int64_t i = 0; i < num_samples; ++i) {
    ++state_.counts[choose()];
    ++state_.consumed_samples;
  }
}

void Sampler::restore(const SamplerState& state) {
  if (state.counts.size() != sources_.size()) {
    throw Error(fmt::format(
        "the saved data position is of {} sources, the config lists {}; use the config of the saved "
        "run, or start from its weights only",
        state.counts.size(), sources_.size()));
  }
  const bool negative =
      std::any_of(state.counts.begin(), state.counts.end(), [](int64_t c) { return c < 0; });
  const int64_t sum = std::accumulate(state.counts.begin(), state.counts.end(), int64_t{0});
  if (negative || sum != state.consumed_samples) {
    throw Error(fmt::format("the saved data position is inconsistent: {} samples, but {} over the sources",
                            state.consumed_samples, sum));
  }
  state_ = state;
}

}  // namespace conclave::data
