// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <string_view>

namespace conclave::fuzz {

inline constexpr int kMutations = 10'000;  // of each kind of input, in every run of the tests

// One to four small changes: bytes flipped, replaced, removed, inserted or copied, the text cut short, or its
// first eight bytes, which many formats use for a length. `telling`: bytes that mean something to the format.
inline std::string mutated(std::string text, std::string_view telling, std::mt19937_64& random) {
  const auto below = [&](size_t n) { return n == 0 ? size_t{0} : static_cast<size_t>(random() % n); };
  const auto byte = [&] {
    return below(4) == 0 ? static_cast<char>(random()) : telling[below(telling.size())];
  };
  for (size_t change = below(4) + 1; change > 0 && !text.empty(); --change) {
    const size_t at = below(text.size());
    switch (below(8)) {
      case 0:
        text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
      case 2:
        text[at] = byte();
        break;
      case 3:
        text.erase(at, below(12) + 1);
        break;
      case 4:
        text.insert(at, 1, byte());
        break;
      case 5:
        text.insert(at, text.substr(below(text.size()), below(60)));
        break;
      case 6:
        text.resize(at);
        break;
      default: {
        const uint64_t length = below(2) ? random() : below(text.size() + 16);
        std::memcpy(text.data(), &length, std::min<size_t>(8, text.size()));
      }
    }
  }
  return text;
}

}  // namespace conclave::fuzz
