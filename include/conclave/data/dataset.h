// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "conclave/core/log.h"
#include "conclave/data/document_set.h"
#include "conclave/data/options.h"
#include "conclave/data/tokenizer.h"

namespace conclave::data {

struct DatasetSource {
  std::string name = {};
  double weight = 1.0;
  DocumentSet documents;
};

// The opened `data` section: what is trained on and what is held out. Copies share the mapped files.
struct Dataset {
  DataOptions options = {};
  std::shared_ptr<const Tokenizer> tokenizer = {};
  std::vector<std::string> domain_names = {};  // Batch::domain indexes it; shared by train and valid
  std::vector<DatasetSource> train = {};
  std::vector<DatasetSource> valid = {};  // may be empty: fraction 0
  std::string fingerprint = {};           // equal when the stream of windows is equal
};

// Opens (and, where needed, builds and tokenizes) all sources. No document of `valid` is in `train`, not even
// as a copy in another source: copies are taken out of `train` with a warning. Throws Error when a source has
// no document, when nothing is left to train on, or when `fraction` > 0 holds out nothing because there is
// only one document.
Dataset open_dataset(const DataOptions& options, std::shared_ptr<const Tokenizer> tokenizer, const Log& log);

// Whether a document with this split key is held out. Where 1 / fraction is a whole number n: key % n == 0.
bool is_held_out(uint64_t split_key, double fraction);

}  // namespace conclave::data
