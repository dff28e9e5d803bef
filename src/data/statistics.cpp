// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <unordered_set>

#include <fmt/format.h>

#include "conclave/data/digest.h"

namespace conclave::data {

namespace {

constexpr size_t kBytes = 256, kStartMark = 256, kContexts = 257;

double bits(uint64_t count, uint64_t context_count) {
  if (count == 0) return 0;
  const auto n = static_cast<double>(count);
  return n * std::log2(static_cast<double>(context_count) / n);
}

using TextVisitor = std::function<void(const std::string& text, uint64_t hash, int32_t domain)>;

void visit_texts(const std::vector<DatasetSource>& sources, const Tokenizer& tokenizer,
                 const TextVisitor& visit) {
  std::vector<int32_t> ids;
  for (const auto& source : sources) {
    for (int64_t i = 0; i < source.documents.size(); ++i) {
      ids.resize(static_cast<size_t>(source.documents.length(i)));
      source.documents.copy(i, 0, ids);
      visit(tokenizer.decode(ids), source.documents.content_hash(i), source.documents.domain(i));
    }
  }
}

// Counts what one group of documents holds, and how much of it repeats.
class TextCounter {
 public:
  explicit TextCounter(TextStatistics& to) : to_(to) {}

  void add(std::string_view text, uint64_t hash, bool held_out) {
    (held_out ? to_.held_out_documents : to_.documents) += 1;
    (held_out ? to_.held_out_bytes : to_.bytes) += static_cast<int64_t>(text.size());
    if (!documents_.insert(hash).second) ++to_.duplicate_documents;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (line.find_first_not_of(" \t\r\f\v") == std::string_view::npos) continue;
      ++to_.lines;
      if (!lines_.insert(hash64(line)).second) ++to_.repeated_lines;
    }
  }

 private:
  TextStatistics& to_;
  std::unordered_set<uint64_t> documents_, lines_;
};

ByteEntropies training_entropies(const Dataset& dataset, std::optional<int32_t> domain) {
  TrigramCounter counter;
  visit_texts(dataset.train, *dataset.tokenizer, [&](const std::string& text, uint64_t, int32_t own) {
    if (!domain || *domain == own) counter.add(text);
  });
  return counter.entropies();
}

std::string format_row(const TextStatistics& s, bool with_entropies) {
  const auto share = [](int64_t part, int64_t whole) {
    return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  };
  std::string row = fmt::format("{:<16.16} {:>9} {:>13} {:>8} {:>12} {:>6.1f} {:>6.1f}", s.name, s.documents,
                                s.bytes, s.held_out_documents, s.held_out_bytes,
                                share(s.duplicate_documents, s.documents + s.held_out_documents),
                                share(s.repeated_lines, s.lines));
  if (with_entropies) {
    row += fmt::format(" {:>7.3f} {:>7.3f} {:>7.3f}", s.entropies.unigram, s.entropies.bigram,
                       s.entropies.trigram);
  }
  return row + "\n";
}

}  // namespace

TrigramCounter::TrigramCounter() : counts_(kContexts * kContexts * kBytes, 0) {}

void TrigramCounter::add(std::string_view document) {
  size_t second = kStartMark, first = kStartMark;
  for (const char c : document) {
    const auto byte = static_cast<unsigned char>(c);
    ++counts_[(second * kContexts + first) * kBytes + byte];
    second = first;
    first = byte;
  }
}

ByteEntropies TrigramCounter::entropies() const {
  std::vector<uint64_t> pairs(kContexts * kBytes, 0), singles(kBytes, 0);
  uint64_t total = 0;
  double sum1 = 0, sum2 = 0, sum3 = 0;
  for (size_t context = 0; context < kContexts * kContexts; ++context) {
    const uint64_t* row = counts_.data() + context * kBytes;
    uint64_t count = 0;
    for (size_t b = 0; b < kBytes; ++b) count += row[b];
    if (count == 0) continue;
    for (size_t b = 0; b < kBytes; ++b) {
      sum3 += bits(row[b], count);
      pairs[context % kContexts * kBytes + b] += row[b];
    }
  }
  for (size_t context = 0; context < kContexts; ++context) {
    const uint64_t* row = pairs.data() + context * kBytes;
    uint64_t count = 0;
    for (size_t b = 0; b < kBytes; ++b) count += row[b];
    for (size_t b = 0; b < kBytes; ++b) {
      sum2 += bits(row[b], count);
      singles[b] += row[b];
    }
    total += count;
  }
  for (const uint64_t count : singles) sum1 += bits(count, total);
  if (total == 0) return {};
  const auto n = static_cast<double>(total);
  return {.unigram = sum1 / n, .bigram = sum2 / n, .trigram = sum3 / n};
}

DatasetStatistics describe(const Dataset& dataset) {
  DatasetStatistics result;
  result.all.name = "all";
  for (const auto& name : dataset.domain_names) result.domains.push_back({.name = name});
  std::vector<TextCounter> counters(result.domains.begin(), result.domains.end());
  TextCounter whole(result.all);
  for (const bool held_out : {false, true}) {
    visit_texts(held_out ? dataset.valid : dataset.train, *dataset.tokenizer,
                [&](const std::string& text, uint64_t hash, int32_t domain) {
                  whole.add(text, hash, held_out);
                  counters[static_cast<size_t>(domain)].add(text, hash, held_out);
                });
  }
  result.all.entropies = training_entropies(dataset, std::nullopt);
  result.has_domain_entropies = static_cast<int64_t>(result.domains.size()) <= kMaxEntropyDomains;
  for (size_t d = 0; result.has_domain_entropies && d < result.domains.size(); ++d) {
    result.domains[d].entropies = training_entropies(dataset, static_cast<int32_t>(d));
  }
  return result;
}

std::string format_statistics(const DatasetStatistics& statistics) {
  std::string text =
      fmt::format("{:<16} {:>9} {:>13} {:>8} {:>12} {:>6} {:>6} {:>7} {:>7} {:>7}\n", "domain", "documents",
                  "bytes", "held out", "bytes", "dup %", "rep %", "H(x)", "H(x|1)", "H(x|2)");
  for (const auto& domain : statistics.domains) text += format_row(domain, statistics.has_domain_entropies);
  text += format_row(statistics.all, true);
  text +=
      "dup: documents equal to an earlier one. rep: lines equal to an earlier one. H: bits per byte of the\n"
      "training text given 0, 1, 2 bytes before, counted on itself.\n";
  return text;
}

}  // namespace conclave::data
