// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <unordered_set>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/core/random.h"
#include "conclave/data/corpus.h"
#include "conclave/data/digest.h"

namespace conclave::data {

namespace {

TokenSource find_source(const SourceOptions& options, const Log& log) {
  CONCLAVE_CHECK(options.corpus.has_value() != options.path.has_value(),
                 "a source sets exactly one of corpus and path");
  if (options.corpus) {
    const auto folder = open_corpus(*options.corpus, corpora_directory(), log);
    SourceOptions plain = {.corpus = options.corpus, .weight = options.weight};
    return {
        .name = *options.corpus, .files = find_files(folder.string()), .options = plain, .is_corpus = true};
  }
  const auto path = std::filesystem::path(*options.path);
  const std::string last = (path.has_filename() ? path : path.parent_path()).filename().string();
  const bool has_wildcard = last.find_first_of("*?[") != std::string::npos;
  const std::string name = has_wildcard ? *options.path : last.substr(0, last.find('.', 1));
  return {.name = name, .files = find_files(*options.path), .options = options};
}

struct OpenSource {
  std::string name;
  double weight = 1.0;
  TokenFile tokens;
  std::vector<int64_t> train, valid;  // documents
};

OpenSource open_source(const SourceOptions& options, const Tokenizer& tokenizer, const Log& log) {
  const TokenSource source = find_source(options, log);
  return {.name = source.name,
          .weight = options.weight,
          .tokens = open_tokens(source, tokenizer, cache_directory() / "tokens", log),
          .train = {},
          .valid = {}};
}

uint64_t split_rank(const OpenSource& source, int64_t document) {
  return mix64(source.tokens.split_key(document));
}

// Holds out a share of each source's documents; a source keeps at least one to train on, and where the share
// is so small that it selects none of all documents, the one with the smallest hash is held out.
void split(std::vector<OpenSource>& sources, double fraction) {
  bool any = false;
  for (auto& source : sources) {
    for (int64_t d = 0; d < source.tokens.num_documents(); ++d) {
      const bool held_out = fraction > 0 && is_held_out(source.tokens.split_key(d), fraction);
      (held_out ? source.valid : source.train).push_back(d);
    }
    if (source.train.empty()) {
      const auto last = std::max_element(source.valid.begin(), source.valid.end(), [&](int64_t a, int64_t b) {
        return split_rank(source, a) < split_rank(source, b);
      });
      source.train.push_back(*last);
      source.valid.erase(last);
    }
    any = any || !source.valid.empty();
  }
  if (any || fraction <= 0) return;
  OpenSource* best_source = nullptr;
  size_t best = 0;
  for (auto& source : sources) {
    for (size_t i = 0; source.train.size() > 1 && i < source.train.size(); ++i) {
      if (!best_source ||
          split_rank(source, source.train[i]) < split_rank(*best_source, best_source->train[best])) {
        best_source = &source;
        best = i;
      }
    }
  }
  if (!best_source) {
    throw Error(
        "nothing can be held out for evaluation: every training source is a single document. Set "
        "data.valid.fraction=0, list data.valid.sources, or cut the text into documents with "
        "document_separator",
        Error::Kind::kData);
  }
  best_source->valid.push_back(best_source->train[best]);
  best_source->train.erase(best_source->train.begin() + static_cast<int64_t>(best));
}

// Takes documents out of `train` whose text is also held out.
void remove_copies(std::vector<OpenSource>& train, const std::vector<OpenSource>& valid, const Log& log) {
  std::unordered_set<uint64_t> held_out;
  for (const auto& source : valid) {
    for (const int64_t d : source.valid) held_out.insert(source.tokens.content_hash(d));
  }
  for (auto& source : train) {
    const size_t removed = std::erase_if(
        source.train, [&](int64_t d) { return held_out.contains(source.tokens.content_hash(d)); });
    if (source.train.empty()) {
      throw Error(
          fmt::format(
              "every document of the training source '{}' is also in the validation set; remove it from "
              "one of the two",
              source.name),
          Error::Kind::kData);
    }
    if (removed > 0) {
      log.warn(fmt::format("{}: {} training documents are also held out and were left out of training",
                           source.name, removed));
    }
  }
}

std::vector<int32_t> domain_ids(const TokenFile& tokens, std::vector<std::string>& names) {
  std::vector<int32_t> ids;
  for (const auto& name : tokens.domain_names()) {
    const auto found = std::find(names.begin(), names.end(), name);
    ids.push_back(static_cast<int32_t>(found - names.begin()));
    if (found == names.end()) names.push_back(name);
  }
  return ids;
}

std::string fingerprint_of(const DataOptions& options, const std::vector<OpenSource>& train) {
  std::string text = fmt::format("{} {}", options.seq_length, static_cast<int>(options.packing));
  for (const auto& source : train) {
    const std::string_view documents(reinterpret_cast<const char*>(source.train.data()),
                                     source.train.size() * sizeof(int64_t));
    text += fmt::format(" {} {}", source.tokens.key(), hash128(documents));
  }
  return hash128(text);
}

}  // namespace

bool is_held_out(uint64_t split_key, double fraction) {
  if (fraction <= 0) return false;
  const double parts = std::round(1.0 / fraction);
  if (std::abs(parts * fraction - 1.0) < 1e-9) return split_key % static_cast<uint64_t>(parts) == 0;
  return static_cast<double>(mix64(split_key) >> 11) * 0x1.0p-53 < fraction;
}

Dataset open_dataset(const DataOptions& options, std::shared_ptr<const Tokenizer> tokenizer, const Log& log) {
  if (options.train.empty()) throw Error("data.train lists no source");
  CONCLAVE_CHECK(tokenizer != nullptr, "a dataset needs a tokenizer");
  std::vector<OpenSource> train, listed;
  for (const auto& source : options.train) train.push_back(open_source(source, *tokenizer, log));
  for (const auto& source : options.valid.sources) listed.push_back(open_source(source, *tokenizer, log));
  split(train, listed.empty() ? options.valid.fraction : 0);
  for (auto& source : listed) {
    for (int64_t d = 0; d < source.tokens.num_documents(); ++d) source.valid.push_back(d);
  }
  const auto& valid = listed.empty() ? train : listed;
  remove_copies(train, valid, log);

  Dataset dataset{.options = options, .tokenizer = std::move(tokenizer)};
  dataset.fingerprint = fingerprint_of(options, train);
  for (const auto& s : train) {
    const auto ids = domain_ids(s.tokens, dataset.domain_names);
    dataset.train.push_back({s.name, s.weight, DocumentSet(s.tokens, s.train, ids)});
  }
  for (const auto& s : valid) {
    const auto ids = domain_ids(s.tokens, dataset.domain_names);
    if (!s.valid.empty()) dataset.valid.push_back({s.name, s.weight, DocumentSet(s.tokens, s.valid, ids)});
  }
  return dataset;
}

}  // namespace conclave::data
