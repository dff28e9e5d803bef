// SPDX-License-Identifier: Apache-2.0
// domains4 on made-up packages and on package tools that fail, so without a network.
#include <zlib.h>
#include <nlohmann/json.hpp>

#include "conclave/core/files.h"
#include "conclave/data/corpus.h"
#include "data/helpers.h"

namespace conclave::data {
namespace {

namespace fs = std::filesystem;

// Sets PATH while it lives.
struct ProgramPath {
  explicit ProgramPath(const std::string& path) : old(std::getenv("PATH")) {
    ::setenv("PATH", path.c_str(), 1);
  }
  ~ProgramPath() { ::setenv("PATH", old.c_str(), 1); }
  std::string old;
};

std::string build_error(const TestFolder& folder, const std::string& apt_script) {
  if (!apt_script.empty()) {
    const auto script = folder.write("bin/apt-get", "#!/bin/sh\n" + apt_script + "\n");
    fs::permissions(script, fs::perms::owner_all);
  }
  const ProgramPath path((folder.path() / "bin").string());
  const std::string message = error_of([] { open_corpus("domains4", corpora_directory(), Log()); });
  EXPECT_TRUE(fs::is_empty(corpora_directory()));  // no half-made corpus
  return message;
}

TEST(Packages, EachReasonWhyTheyCannotBeFetchedHasItsRemedy) {
  const TestFolder folder;
  expect_contains(build_error(folder, ""),
                  {"sword-text-web", "Debian 12", ".deb files into", "cache/packages", "path: FILE"});
  expect_contains(build_error(folder, "echo 'E: Unable to locate package sword-text-web' >&2; exit 100"),
                  {"Unable to locate", "`apt-get update` as root"});
  expect_contains(build_error(folder, "echo 'E: Failed to fetch: Could not resolve the host'; exit 100"),
                  {"Could not resolve", "check the network"});
  expect_contains(build_error(folder, "test \"$LC_ALL\" = C || exit 3; exit 0"), {"no such file"});
}

std::string word(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
  return text;
}

void write_testament(const TestFolder& folder, const std::string& stem, const std::string& osis) {
  std::string packed(::compressBound(osis.size()), '\0');
  uLongf size = packed.size();
  ::compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(osis.data()),
             osis.size());
  folder.write(stem + ".bzz", packed.substr(0, size));
  folder.write(stem + ".bzs", word(0, 4) + word(size, 4) + word(osis.size(), 4));
  folder.write(stem + ".bzv", word(0, 4) + word(0, 4) + word(osis.size() & 0xFFFF, 2));
}

bool pack(const TestFolder& folder, const std::string& name) {
  folder.write(name + "/DEBIAN/control",
               "Package: " + name + "\nVersion: 0.1-7\nArchitecture: all\n" +
                   "Maintainer: nobody <nobody@example.org>\nDescription: made up\n");
  fs::create_directories(folder.path() / "cache/packages");
  const std::string command = "dpkg-deb --root-owner-group -b '" + (folder.path() / name).string() + "' '" +
                              (folder.path() / "cache/packages" / (name + "_0.1-7_all.deb")).string() +
                              "' >/dev/null 2>&1";
  return std::system(command.c_str()) == 0;
}

TEST(Packages, TheCorpusIsMadeFromPackagesThatLieInTheCache) {
  const TestFolder folder;
  const std::string filler(300, 'f');
  const std::string ztext = "sword-text-web/usr/share/sword/modules/texts/ztext/engWEB2015eb/";
  write_testament(folder, ztext + "ot", "<chapter osisID=\"Gen.1\" sID=\"1\"/>one " + filler);
  write_testament(folder, ztext + "nt", "<chapter osisID=\"Matt.1\" sID=\"2\"/>two " + filler);
  folder.write("wordnet-base/usr/share/wordnet/data.noun",
               "  licence\n00001740 05 n 01 cat 0 000 | " + filler + "\n");
  for (const char* kind : {"verb", "adj", "adv"})
    folder.write(std::string("wordnet-base/usr/share/wordnet/data.") + kind, "");
  const std::string html = "postgresql-doc-15/usr/share/doc/postgresql-doc-15/html/";
  folder.write(html + "sql-select.html", "<html><body><p>" + filler + "</p></body></html>");
  folder.write(html + "index.html", "<html><body><p>index " + filler + "</p></body></html>");
  folder.write(html + "short.html", "<html><body><p>too short</p></body></html>");
  const std::string lib = "/usr/lib/python3.11/";
  folder.write("libpython3.11-minimal" + lib + "json/tool.py", "def f():\n\treturn 1  \n# " + filler + "\n");
  folder.write("libpython3.11-stdlib" + lib + "copy_of_tool.py", "def f():\n\treturn 1\n# " + filler);
  fs::create_symlink("/etc/passwd", folder.path() / ("libpython3.11-stdlib" + lib + "link.py"));
  for (const char* name : {"sword-text-web", "wordnet-base", "postgresql-doc-15", "libpython3.11-minimal",
                           "libpython3.11-stdlib"}) {
    if (!pack(folder, name)) GTEST_SKIP() << "dpkg-deb cannot build a package here";
  }

  LogLines log;
  const auto corpus = open_corpus("domains4", corpora_directory(), log.log());
  EXPECT_TRUE(log.mention("reference figures"));  // other versions: a warning, no error
  const auto line = [&](const char* domain) {
    const std::string content = read_file(corpus / (std::string(domain) + ".jsonl"));
    return nlohmann::json::parse(content.substr(0, content.find('\n')));
  };
  EXPECT_EQ(line("prose"), (nlohmann::json{{"text", "one " + filler}, {"label", "Gen"}, {"id", "Gen.1"}}));
  EXPECT_EQ(line("gloss")["id"], "noun.animal/0000");
  EXPECT_EQ(line("techdoc"), (nlohmann::json{{"text", filler}, {"label", "sql"}, {"id", "sql-select"}}));
  EXPECT_EQ(line("code")["text"], "def f():\n\treturn 1\n# " + filler);

  const auto manifest = nlohmann::json::parse(read_file(corpus / "manifest.json"));
  ASSERT_EQ(manifest["domains"].size(), 4u);
  EXPECT_EQ(manifest["domains"][0]["documents"], 2);
  EXPECT_EQ(manifest["domains"][2]["dropped_too_short"], 1);
  EXPECT_EQ(manifest["domains"][3]["dropped_duplicates"], 1);
  EXPECT_EQ(manifest["domains"][3]["documents"], 1);
  EXPECT_EQ(manifest["domains"][3]["packages"][1]["version"], "0.1-7");
  EXPECT_FALSE(fs::exists(corpus / "work"));

  const auto dataset =
      open_dataset({.seq_length = 16, .train = {{.corpus = "domains4"}}}, byte_tokenizer(), log.log());
  EXPECT_EQ(dataset.domain_names, (std::vector<std::string>{"code", "gloss", "prose", "techdoc"}));
}

}  // namespace
}  // namespace conclave::data
