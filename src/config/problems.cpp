// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/problems.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::config {

void Problems::add(Origin origin, std::string message, std::string remedy) {
  problems_.push_back({std::move(origin), std::move(message), std::move(remedy)});
}

namespace {

std::string line_of(const std::string& text, int line) {
  size_t begin = 0;
  for (int i = 1; i < line; ++i) {
    begin = text.find('\n', begin);
    if (begin == std::string::npos) return "";
    ++begin;
  }
  return text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace

std::string Problems::render() const {
  std::string out;
  for (const auto& p : problems_) {
    if (p.origin.source) {
      out += fmt::format("{}:{}:{}: error: {}\n", p.origin.source->name, p.origin.line, p.origin.column,
                         p.message);
      const std::string line = line_of(p.origin.source->text, p.origin.line);
      if (!line.empty()) {
        const int room = std::max(1, static_cast<int>(line.size()) - p.origin.column + 1);
        out += fmt::format("{:5} | {}\n      | {}^{}\n", p.origin.line, line,
                           std::string(static_cast<size_t>(std::max(p.origin.column - 1, 0)), ' '),
                           std::string(static_cast<size_t>(std::clamp(p.origin.length, 1, room) - 1), '~'));
      }
    } else {
      out += fmt::format("error: {}\n", p.message);
    }
    if (!p.remedy.empty()) out += fmt::format("  {}\n", p.remedy);
  }
  out += fmt::format("{} error{}; nothing was started.", problems_.size(), problems_.size() == 1 ? "" : "s");
  return out;
}

void Problems::throw_if_any() const {
  if (!problems_.empty()) throw ConfigError(render());
}

namespace {

// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours cost 1.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t same = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + same});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string unknown_name(std::string_view what, std::string_view word,
                         const std::vector<std::string>& known) {
  const std::string near = nearest(word, known);
  return fmt::format("unknown {} '{}'{} (known: {})", what, word,
                     near.empty() ? "" : fmt::format("; did you mean '{}'?", near), fmt::join(known, ", "));
}

}  // namespace conclave::config
