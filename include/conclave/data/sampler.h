// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace conclave::data {

// A keyed bijection of [0, size): a balanced Feistel network on the next even number of bits, walked until
// the result is inside. O(1) memory, O(1) expected time.
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t key);
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t encrypt(uint64_t value) const;
  uint64_t size_ = 0, key_ = 0;
  int half_bits_ = 1;
};

// One sample of the run: its number in the global stream, and the window that it is.
struct SampleRef {
  int64_t index = 0;
  int32_t source = 0;
  int64_t epoch = 0;  // of that source
  int64_t window = 0;
};

// Everything that a continuation needs; the order itself is a function of the seed.
struct SamplerState {
  int64_t consumed_samples = 0;
  std::vector<int64_t> counts = {};  // samples taken from each source
  std::string fingerprint = {};      // of the dataset, see Dataset::fingerprint; "" is not checked
};

struct SamplerSource {
  int64_t num_windows = 0;
  double weight = 1.0;  // share of the samples; weights need not sum to 1
};

// The global order of samples, the same for any number of ranks. Sample i comes from the source with the
// greatest weight * max(i, 1) - count (the first of equals), and is that source's next window in the order of
// a permutation keyed by (seed, source, epoch). A source that is used up starts its next epoch.
class Sampler {
 public:
  Sampler(std::vector<SamplerSource> sources, uint64_t seed, bool shuffle);
  SampleRef next();
  void skip(int64_t num_samples);
  const SamplerState& state() const { return state_; }
  // Throws Error when the state is of other sources or inconsistent. Replays nothing.
  void restore(const SamplerState& state);

 private:
  size_t choose() const;
  std::vector<SamplerSource> sources_;
  uint64_t seed_ = 0;
  bool shuffle_ = true;
  SamplerState state_;
};

}  // namespace conclave::data
