// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/reader.h"

#include <zlib.h>
#include <zstd.h>

#include "data/helpers.h"

namespace conclave::data {
namespace {

namespace fs = std::filesystem;

std::vector<Document> read_all(const fs::path& path, const SourceOptions& options = {}) {
  std::vector<Document> documents;
  read_documents(path, options, [&](Document&& d) { documents.push_back(std::move(d)); });
  return documents;
}

std::string zstd(const std::string& text) {
  std::string packed(::ZSTD_compressBound(text.size()), '\0');
  packed.resize(::ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

void write_gzip(const fs::path& path, const std::string& text, const char* mode = "wb") {
  const gzFile file = ::gzopen(path.c_str(), mode);
  ::gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  ::gzclose(file);
}

TEST(FindFiles, AFolderIsReadInTheOrderOfNamesWithoutLinks) {
  const TestFolder folder;
  folder.write("in/b.txt", "b");
  folder.write("in/a/z.jsonl", "");
  folder.write("in/c.bin", "not ours");
  fs::create_symlink(folder.path() / "in/b.txt", folder.path() / "in/aa.txt");
  fs::create_directory_symlink(folder.path() / "in/a", folder.path() / "in/loop");
  const auto files = find_files((folder.path() / "in").string());
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].name, "a/z.jsonl");
  EXPECT_EQ(files[1].name, "b.txt");
}

TEST(FindFiles, AGlobMatchesInAnyComponent) {
  const TestFolder folder;
  folder.write("run1/x.txt", "1");
  folder.write("run2/x.txt", "2");
  folder.write("run2/y.md", "3");
  const auto files = find_files((folder.path() / "run*/x.t?t").string());
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].name, "run1/x.txt");
  EXPECT_EQ(files[1].name, "run2/x.txt");
}

TEST(FindFiles, WhatMatchesNothingIsAnError) {
  const TestFolder folder;
  folder.write("empty/readme.pdf", "");
  expect_contains(error_of([&] { find_files((folder.path() / "none").string()); }),
                  {"no file or folder", "none"});
  expect_contains(error_of([&] { find_files((folder.path() / "*.txt").string()); }),
                  {"no file matches", "*.txt"});
  expect_contains(error_of([&] { find_files((folder.path() / "empty").string()); }),
                  {"known format", ".jsonl"});
  expect_contains(error_of([&] { read_documents("x.pdf", {}, [](Document&&) {}); }),
                  {"x.pdf", "extension", ".txt"});
}

TEST(TextReader, AFileIsOneDocumentOrIsCutAtTheSeparator) {
  const TestFolder folder;
  const auto path = folder.write("a.txt", "\xEF\xBB\xBFone\n\ntwo\n\nthree");
  const auto whole = read_all(path);
  ASSERT_EQ(whole.size(), 1u);
  EXPECT_EQ(whole[0].text, "one\n\ntwo\n\nthree");
  const auto parts = read_all(path, {.document_separator = "\n\n"});
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[1].text, "two");
}

TEST(TextReader, InvalidUtf8IsReportedWithItsOffset) {
  const TestFolder folder;
  const auto path = folder.write("latin.txt", "caf\xE9 au lait");
  expect_contains(error_of([&] { read_all(path); }), {"latin.txt", "byte 3", "0xE9", "iconv"});
}

TEST(Utf8, OnlyWellFormedSequencesPass) {
  EXPECT_EQ(find_invalid_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), -1);
  EXPECT_EQ(find_invalid_utf8("ab\xC0\xAF"), 2);         // overlong
  EXPECT_EQ(find_invalid_utf8("\xED\xA0\x80"), 0);       // surrogate
  EXPECT_EQ(find_invalid_utf8("a\xF4\x90\x80\x80"), 1);  // beyond U+10FFFF
  EXPECT_EQ(find_invalid_utf8("a\xE2\x82"), 1);          // cut short
}

TEST(JsonlReader, FieldsAreTakenByName) {
  const TestFolder folder;
  const auto path = folder.write(
      "a.jsonl", "{\"body\": \"x\\ny\", \"kind\": \"k\", \"id\": \"7\"}\r\n\n{\"body\":\"\",\"kind\":\"\"}");
  const auto documents = read_all(path, {.text_field = "body", .label_field = "kind"});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].text, "x\ny");
  EXPECT_EQ(documents[0].label, "k");
  EXPECT_EQ(documents[0].id, "7");
}

TEST(JsonlReader, EveryMistakeNamesTheLineAndTheRemedy) {
  const TestFolder folder;
  const auto message = [&](const std::string& line, const SourceOptions& options = {}) {
    const auto path = folder.write("bad.jsonl", "{\"text\": \"fine\", \"label\": \"l\"}\n" + line + "\n");
    return error_of([&] { read_all(path, options); });
  };
  expect_contains(message("{\"txt\": \"x\"}"), {"bad.jsonl:2", "no field 'text'", "txt", "text_field"});
  expect_contains(message("{\"text\": 5}"), {"bad.jsonl:2", "number", "text_field"});
  expect_contains(message("{\"text\": \"a\"}", {.label_field = "label"}),
                  {"bad.jsonl:2", "'label'", "label_field"});
  expect_contains(message("{\"text\": \"a\""), {"bad.jsonl:2", "not JSON", "one complete JSON object"});
  expect_contains(message("[1]"), {"bad.jsonl:2", "array"});
  expect_contains(message("{\"text\": \"\xFF\"}"), {"bad.jsonl:2", "0xFF", "byte 10"});
  expect_contains(message("{\"text\": \"\\ud800\"}"), {"bad.jsonl:2", "not JSON"});
}

TEST(JsonlReader, CompressedFilesGiveTheSameDocuments) {
  const TestFolder folder;
  const std::string text = toy_jsonl(9001), more = toy_jsonl(17, "more ");
  const auto plain = read_all(folder.write("p.jsonl", text + more));
  folder.write("z.jsonl.zst", zstd(text) + zstd(more));  // two frames
  write_gzip(folder.path() / "g.jsonl.gz", text);
  write_gzip(folder.path() / "g.jsonl.gz", more, "ab");  // two members
  for (const char* name : {"z.jsonl.zst", "g.jsonl.gz"}) {
    const auto documents = read_all(folder.path() / name);
    ASSERT_EQ(documents.size(), plain.size()) << name;
    for (size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(documents[i].text, plain[i].text) << name << " " << i;
  }
}

TEST(JsonlReader, DamagedArchivesAreErrors) {
  const TestFolder folder;
  const std::string packed = zstd(toy_jsonl(999));
  write_gzip(folder.path() / "g.jsonl.gz", toy_jsonl(999));
  std::ifstream in(folder.path() / "g.jsonl.gz", std::ios::binary);
  const std::string gzip((std::istreambuf_iterator<char>(in)), {});
  const auto message = [&](const std::string& name, const std::string& content) {
    const auto path = folder.write(name, content);
    return error_of([&] { read_all(path); });
  };
  expect_contains(message("cut.jsonl.zst", packed.substr(0, packed.size() - 5)),
                  {"cut.jsonl.zst", "truncated"});
  expect_contains(message("empty.jsonl.zst", ""), {"truncated"});
  expect_contains(message("no.jsonl.zst", "{\"text\": \"plain\"}\n"), {"damaged"});
  expect_contains(message("cut.jsonl.gz", gzip.substr(0, gzip.size() - 12)), {"cut.jsonl.gz", "gzip"});
  expect_contains(message("no.jsonl.gz", "{\"text\": \"plain\"}\n"), {"not a gzip archive"});
}

}  // namespace
}  // namespace conclave::data
