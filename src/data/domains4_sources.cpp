// SPDX-License-Identifier: Apache-2.0
#include "domains4_sources.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/data/extract.h"

namespace conclave::data {

namespace fs = std::filesystem;

namespace {

// The regular files below a folder by their relative names, sorted. Symbolic links are not followed: the
// packages hold some that point into the host, and some that name a file of the tree twice.
std::vector<std::string> files_below(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw Error(fmt::format("the package has no folder '{}'; has its layout changed?", folder.string()),
                Error::Kind::kData);
  }
  std::vector<std::string> names;
  for (const auto& item : fs::recursive_directory_iterator(folder)) {
    if (item.is_symlink() || !item.is_regular_file()) continue;
    names.push_back(item.path().lexically_relative(folder).generic_string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<Document> extract_prose(const fs::path& root) {
  const fs::path folder = root / "usr/share/sword/modules/texts/ztext/engWEB2015eb";
  std::vector<Document> documents;
  for (const char* testament : {"ot", "nt"}) {
    const auto part = [&](const char* extension) {
      return read_file(folder / (std::string(testament) + extension));
    };
    auto chapters = osis_chapters(sword_text(part(".bzs"), part(".bzv"), part(".bzz")));
    std::move(chapters.begin(), chapters.end(), std::back_inserter(documents));
  }
  return documents;
}

std::vector<Document> extract_gloss(const fs::path& root) {
  std::vector<std::string> files;
  for (const char* kind : {"noun", "verb", "adj", "adv"}) {
    files.push_back(read_file(root / "usr/share/wordnet" / (std::string("data.") + kind)));
  }
  return wordnet_documents(files);
}

std::vector<Document> extract_techdoc(const fs::path& root) {
  constexpr std::array<std::string_view, 4> kLists = {"bookindex.html", "index.html", "biblio.html",
                                                      "sql-keywords-appendix.html"};
  const fs::path folder = root / "usr/share/doc/postgresql-doc-15/html";
  std::vector<Document> documents;
  for (const auto& name : files_below(folder)) {
    if (!name.ends_with(".html") || std::find(kLists.begin(), kLists.end(), name) != kLists.end()) continue;
    const std::string stem = name.substr(0, name.size() - 5);
    documents.push_back(
        {.text = xhtml_text(read_file(folder / name)), .label = stem.substr(0, stem.find('-')), .id = stem});
  }
  return documents;
}

std::vector<Document> extract_code(const fs::path& root) {
  const fs::path folder = root / "usr/lib/python3.11";
  std::vector<Document> documents;
  for (const auto& name : files_below(folder)) {
    if (!is_kept_python_file(name)) continue;
    const size_t slash = name.find('/');
    documents.push_back({.text = trim_lines(read_file(folder / name)),
                         .label = slash == std::string::npos ? "(top)" : name.substr(0, slash),
                         .id = name});
  }
  return documents;
}

}  // namespace

std::vector<DomainSource> domains4_sources() {
  return {
      {.name = "prose",
       .doc = "An English prose text in chapters (World English Bible, mark-up, titles and notes removed).",
       .licence = "public domain",
       .packages = {"sword-text-web"},
       .known_versions = "sword-text-web 426.0-1",
       .known_sha256 = "8583c3e52702b20fb9efd2556a0aa247fd84646c7ad9b903ffa008672fef6bee",
       .extract = extract_prose},
      {.name = "gloss",
       .doc = "Dictionary glosses by topic (WordNet 3.0).",
       .licence = "WordNet licence (permissive)",
       .packages = {"wordnet-base"},
       .known_versions = "wordnet-base 1:3.0-37",
       .known_sha256 = "84f97a179c582179ff0f93b6ad8f1f29c61bc53d1cfabf8a34bc6e0a6c35bd93",
       .extract = extract_gloss},
      {.name = "techdoc",
       .doc = "The PostgreSQL 15 manual as plain text.",
       .licence = "PostgreSQL licence (permissive)",
       .packages = {"postgresql-doc-15"},
       .known_versions = "postgresql-doc-15 15.20-0+deb12u1",
       .known_sha256 = "10f778edc5a2ad1a27f5b6c55d9e5ad01bf22140148fd393dd99e51ea4df2149",
       .extract = extract_techdoc},
      {.name = "code",
       .doc = "Sources of the Python 3.11 standard library.",
       .licence = "Python Software Foundation License 2",
       .packages = {"libpython3.11-minimal", "libpython3.11-stdlib"},
       .known_versions = "libpython3.11-minimal 3.11.2-6+deb12u9, libpython3.11-stdlib 3.11.2-6+deb12u9",
       .known_sha256 = "9a198b36b04094780bfb57b32c72fa7eb36e55363b0fc8c02806ed0c2f0a21cf",
       .extract = extract_code}};
}

}  // namespace conclave::data
