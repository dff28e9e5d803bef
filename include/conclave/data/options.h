// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "conclave/config/fields.h"

namespace conclave::data {

enum class Packing { kConcat, kNone };

// One source of documents: a built-in corpus or files.
struct SourceOptions {
  std::optional<std::string> corpus = {};  // name in builtin_corpora()
  std::optional<std::string> path = {};    // file, folder or glob
  double weight = 1.0;
  std::string text_field = "text";
  std::optional<std::string> label_field = {};
  std::optional<std::string> document_separator = {};
  void fields(config::Fields& f);
};

// What is held out: a share of the documents of `train`, or sources of its own.
struct ValidOptions {
  double fraction = 0.05;
  std::vector<SourceOptions> sources = {};
  void fields(config::Fields& f);
};

// `data`
struct DataOptions {
  int64_t seq_length = 256;
  Packing packing = Packing::kConcat;
  bool shuffle = true;
  int64_t num_workers = 1;
  std::vector<SourceOptions> train = {};
  ValidOptions valid = {};
  void fields(config::Fields& f);
};

// `packing` as it is written in YAML.
const std::vector<std::pair<std::string, Packing>>& packing_names();

}  // namespace conclave::data
