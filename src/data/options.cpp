// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/options.h"

namespace conclave::data {

const std::vector<std::pair<std::string, Packing>>& packing_names() {
  static const std::vector<std::pair<std::string, Packing>> names = {{"concat", Packing::kConcat},
                                                                     {"none", Packing::kNone}};
  return names;
}

void SourceOptions::fields(config::Fields& f) {
  f("corpus", corpus, "A built-in corpus by name; exactly one of corpus and path.");
  f("path", path, "A file, a folder (recursively) or a glob; the format follows from the extension.");
  f("weight", weight, "Share of the samples, relative to the other sources.").positive();
  f("text_field", text_field, "jsonl: the field that holds the text.")
      .only_if([this] { return path.has_value(); }, "path is not set");
  f("label_field", label_field,
    "jsonl: the field that names the document's domain; null: one domain a source.")
      .only_if([this] { return path.has_value(); }, "path is not set");
  f("document_separator", document_separator,
    "Text files: the string that stands between two documents; null: a file is one document.")
      .only_if([this] { return path.has_value(); }, "path is not set");
  f.check([this](config::Check& check) {
    if (corpus.has_value() == path.has_value()) {
      check.error("", corpus ? "both corpus and path are set" : "neither corpus nor path is set",
                  "set exactly one: corpus names a built-in corpus, path names files");
    }
    if (document_separator && document_separator->empty()) {
      check.error("document_separator", "document_separator is empty",
                  "write the string that stands between two documents, or null");
    }
  });
}

void ValidOptions::fields(config::Fields& f) {
  f("fraction", fraction, "Share of the documents of `train` that is held out; 0: nothing.")
      .min(0)
      .less_than(1)
      .only_if([this] { return sources.empty(); },
               "valid.sources is set, and its documents are what is held out");
  f("sources", sources, "Sources to evaluate on, written like `train`; replaces fraction.");
}

void DataOptions::fields(config::Fields& f) {
  f("seq_length", seq_length, "Tokens of a row.").min(1);
  f("packing", packing, packing_names(),
    "concat: documents end to end, cut into rows; none: a row holds one document or a piece of it, and "
    "padding.");
  f("shuffle", shuffle,
    "Take the rows of an epoch in a random order (keyed by the seed), not in that of the files.");
  f("num_workers", num_workers, "Background threads that prepare batches: 0 or 1.").min(0).max(1);
  f("train", train, "Sources to train on, mixed by weight.").required();
  f("valid", valid, "What is held out for evaluation.");
  f.check([this](config::Check& check) {
    if (train.empty())
      check.error("train", "train lists no source", "add one: {corpus: domains4} or {path: FILE}");
  });
}

}  // namespace conclave::data
