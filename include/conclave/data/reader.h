// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "conclave/data/options.h"

namespace conclave::data {

// One document as a reader found it. `text` is valid UTF-8.
struct Document {
  std::string text = {};
  std::string label = {};  // "" without label_field
  std::string id = {};     // "" where the format has none
};

using DocumentSink = std::function<void(Document&&)>;

// A file of a source: where it lies, and its name relative to the source (so that moving a source changes
// nothing).
struct SourceFile {
  std::filesystem::path path = {};
  std::string name = {};
};

// The files behind `path`: the file itself; a folder's files of known formats, recursively and sorted by
// name; the matches of a glob (* ? [..] in any component), sorted. Symbolic links inside a folder are not
// followed. Throws Error when there is none.
std::vector<SourceFile> find_files(const std::string& path);

// A file format: a line of the table of readers.
struct ReaderEntry {
  std::string name;
  std::string doc;
  std::vector<std::string> extensions;  // ".jsonl.gz"; the longest match wins
  std::function<void(const std::filesystem::path&, const SourceOptions&, const DocumentSink&)> read;
};

std::vector<ReaderEntry> builtin_readers();

// The reader for a file name; throws Error that lists the known extensions.
const ReaderEntry& reader_for(const std::filesystem::path& path, const std::vector<ReaderEntry>& table);

// All documents of one file in order. Bad input throws Error (kData) that names the file, the line or the
// byte offset, and what to do.
void read_documents(const std::filesystem::path& path, const SourceOptions& options,
                    const DocumentSink& sink);

// Offset of the first byte that is not valid UTF-8, or -1.
int64_t find_invalid_utf8(std::string_view text);

}  // namespace conclave::data
