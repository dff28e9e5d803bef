// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/data/dataset.h"

namespace conclave::data {

// Bits per byte that a perfect model of one, two or three bytes would need on the text it was counted on; 0
// for no text.
struct ByteEntropies {
  double unigram = 0;  // H(x)
  double bigram = 0;   // H(x | one byte before)
  double trigram = 0;  // H(x | two bytes before)
};

// Counts bytes after their two predecessors; two marks stand before a document.
class TrigramCounter {
 public:
  TrigramCounter();
  void add(std::string_view document);
  ByteEntropies entropies() const;

 private:
  std::vector<uint64_t> counts_;  // [257][257][256]: byte two before, byte before, byte
};

struct TextStatistics {
  std::string name = {};
  int64_t documents = 0, held_out_documents = 0;
  int64_t bytes = 0, held_out_bytes = 0;  // of text; `bytes` and `documents` are those to train on
  int64_t duplicate_documents = 0;        // equal to an earlier one, both splits together
  int64_t lines = 0, repeated_lines = 0;  // not blank; equal to an earlier one
  ByteEntropies entropies = {};           // of the training documents
};

struct DatasetStatistics {
  TextStatistics all = {};
  std::vector<TextStatistics> domains = {};
  bool has_domain_entropies = false;  // only for up to kMaxEntropyDomains domains
};
constexpr int64_t kMaxEntropyDomains = 32;

// Reads all tokens twice, and once more for each domain whose entropies are asked for. Memory: 135 MB for
// counts, and a few tens of bytes for each different document and line.
DatasetStatistics describe(const Dataset& dataset);

// A table for people, lines of at most 110 columns.
std::string format_statistics(const DatasetStatistics& statistics);

}  // namespace conclave::data
