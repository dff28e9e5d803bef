// SPDX-License-Identifier: Apache-2.0
#include "domains4.h"

#include <algorithm>
#include <unordered_set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/data/dataset.h"
#include "conclave/data/digest.h"
#include "conclave/data/extract.h"
#include "debian_package.h"
#include "domains4_sources.h"
#include "output_file.h"

namespace conclave::data {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kShortestDocumentBytes = 200;
constexpr double kHeldOutFraction = 0.05;  // for the manifest's figures; the config decides

struct DomainFigures {
  int64_t documents = 0, bytes = 0, held_out_documents = 0, held_out_bytes = 0, too_short = 0, duplicates = 0;
};

// Writes the documents, without those that are too short or copies of an earlier one.
DomainFigures write_domain(const DomainSource& domain, const std::vector<Document>& documents,
                           const fs::path& path) {
  DomainFigures figures;
  std::unordered_set<std::string> seen;
  OutputFile file(path);
  for (const Document& document : documents) {
    const auto size = static_cast<int64_t>(document.text.size());
    if (const int64_t offset = find_invalid_utf8(document.text); offset >= 0) {
      throw Error(fmt::format("the document '{}' of the domain {} is not UTF-8 at byte {}", document.id,
                              domain.name, offset),
                  Error::Kind::kData);
    }
    if (size < kShortestDocumentBytes) {
      ++figures.too_short;
    } else if (!seen.insert(hash128(document.text)).second) {
      ++figures.duplicates;
    } else {
      const nlohmann::ordered_json line = {
          {"text", document.text}, {"label", document.label}, {"id", document.id}};
      file.write(line.dump() + "\n");
      ++figures.documents;
      figures.bytes += size;
      if (is_held_out(crc32_of(domain.name + "/" + document.id), kHeldOutFraction)) {
        ++figures.held_out_documents;
        figures.held_out_bytes += size;
      }
    }
  }
  file.commit();
  return figures;
}

// Says so when the result differs from the one known for these package versions. Never an error: packages of
// the security archive change, and training works all the same.
void compare_with_known(const DomainSource& domain, const std::vector<DebianPackage>& packages,
                        const std::string& sha256, const Log& log) {
  std::string versions;
  for (const auto& package : packages)
    versions += (versions.empty() ? "" : ", ") + package.name + " " + package.version;
  if (versions != domain.known_versions) {
    log.warn(fmt::format(
        "domains4/{}: made from {}, while its reference figures are for {}; results are close to those "
        "but not equal",
        domain.name, versions, domain.known_versions));
  } else if (sha256 != domain.known_sha256) {
    log.warn(fmt::format("domains4/{}: sha256 {} differs from {}, which {} should give; please report it",
                         domain.name, sha256, domain.known_sha256, versions));
  }
}

nlohmann::ordered_json build_domain(const DomainSource& domain, const fs::path& folder, const Log& log) {
  const fs::path work = folder / "work" / domain.name;
  fs::create_directories(work);
  const auto packages = unpack_packages(domain.packages, work, cache_directory() / "packages", log);
  const std::string file = domain.name + ".jsonl";
  const DomainFigures figures = write_domain(domain, domain.extract(work / "root"), folder / file);
  if (figures.documents == 0) {
    throw Error(fmt::format("the packages of the domain {} gave no document", domain.name),
                Error::Kind::kData);
  }
  const std::string sha256 = sha256_of_file(folder / file);
  compare_with_known(domain, packages, sha256, log);
  nlohmann::ordered_json entry = {{"name", domain.name},
                                  {"file", file},
                                  {"content", domain.doc},
                                  {"licence", domain.licence},
                                  {"documents", figures.documents},
                                  {"bytes", figures.bytes},
                                  {"held_out_documents", figures.held_out_documents},
                                  {"held_out_bytes", figures.held_out_bytes},
                                  {"dropped_too_short", figures.too_short},
                                  {"dropped_duplicates", figures.duplicates},
                                  {"sha256", sha256},
                                  {"xxh3", hash128_of_file(folder / file)},
                                  {"packages", nlohmann::ordered_json::array()}};
  for (const auto& package : packages) {
    entry["packages"].push_back(
        {{"name", package.name}, {"version", package.version}, {"sha256", package.sha256}});
  }
  return entry;
}

void build_domains4(const fs::path& folder, const Log& log) {
  nlohmann::ordered_json manifest = {
      {"corpus", "domains4"}, {"version", 1}, {"domains", nlohmann::ordered_json::array()}};
  for (const auto& domain : domains4_sources())
    manifest["domains"].push_back(build_domain(domain, folder, log));
  fs::remove_all(folder / "work");
  write_file_atomically(folder / "manifest.json", manifest.dump(2) + "\n");
}

}  // namespace

CorpusEntry domains4_entry() {
  return {.name = "domains4",
          .doc =
              "Four kinds of English text from Debian packages: prose, gloss, techdoc, code (about 31 MB, "
              "made locally).",
          .folder = "domains4-v1",
          .build = build_domains4};
}

}  // namespace conclave::data
