// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/extract.h"

#include <zlib.h>

#include "data/helpers.h"

namespace conclave::data {
namespace {

std::string little_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
  return text;
}

struct Module {
  std::string blocks, verses, data;
  void block(const std::string& text) {
    std::string packed(::compressBound(text.size()), '\0');
    uLongf size = packed.size();
    ::compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(text.data()),
               text.size());
    blocks += little_endian(data.size(), 4) + little_endian(size, 4) + little_endian(text.size(), 4);
    data += packed.substr(0, size);
  }
  void verse(uint64_t block, uint64_t offset, uint64_t size) {
    verses += little_endian(block, 4) + little_endian(offset, 4) + little_endian(size & 0xFFFF, 2);
  }
  std::string text() const { return sword_text(blocks, verses, data); }
};

TEST(Sword, FollowsTheVerseTableNotTheBlocks) {
  Module module;
  module.block("first|old copy|second|");
  module.block("third|");
  module.verse(0, 0, 0);  // an unused slot
  module.verse(1, 0, 6);
  module.verse(0, 0, 6);
  module.verse(0, 15, 7);
  module.verse(0, 15, 7);  // shares its place
  EXPECT_EQ(module.text(), "third|first|second|");
}

TEST(Sword, ALengthBeyond16BitsIsRecovered) {
  const std::string whole(125566, 'x');
  Module module;
  module.block(whole + "next");
  module.verse(0, 0, whole.size());  // the table says 60,030
  module.verse(0, whole.size(), 4);
  EXPECT_EQ(module.text(), whole + "next");
  Module last;  // also at the end of a block
  last.block("a" + whole);
  last.verse(0, 0, 1);
  last.verse(0, 1, whole.size());
  EXPECT_EQ(last.text().size(), whole.size() + 1);
}

TEST(Sword, DamageIsAnError) {
  Module module;
  module.block("abc");
  module.verse(0, 0, 9);
  expect_contains(error_of([&] { module.text(); }), {"SWORD", "outside its block"});
  module.verses = little_endian(7, 4) + little_endian(0, 4) + little_endian(3, 2);
  expect_contains(error_of([&] { module.text(); }), {"block 7"});
  module.data.resize(4);
  expect_contains(error_of([&] { module.text(); }), {"outside the data"});
}

std::string chapter_text(const std::string& body) {
  const auto chapters = osis_chapters("<chapter osisID=\"Gen.1\" sID=\"Gen.1\"/>" + body);
  EXPECT_EQ(chapters.size(), 1u);
  return chapters.empty() ? "" : chapters[0].text;
}

TEST(Osis, ANoteIsABlankOnlyBetweenWords) {
  EXPECT_EQ(chapter_text("<w>God</w><note type=\"x\">a <b>c</b></note><w>created</w>"), "God created");
  EXPECT_EQ(chapter_text("Christ,<note>n</note><w>the</w> son"), "Christ, the son");
  EXPECT_EQ(chapter_text("said<note>n</note>\xE2\x80\x9CLet"), "said \xE2\x80\x9CLet");
  EXPECT_EQ(chapter_text("earth<note>n</note>."), "earth.");
  EXPECT_EQ(chapter_text("earth<note>n</note> and"), "earth and");
  EXPECT_EQ(chapter_text("one <note>n</note>two"), "one two");
  EXPECT_EQ(chapter_text("(<note>n</note>two)"), "(two)");
  EXPECT_EQ(chapter_text("a<note>1</note><note>2</note>b"), "a b");
}

TEST(Osis, TagsGoWithoutABlankAndBreaksBecomeNewlines) {
  EXPECT_EQ(chapter_text("<w l=\"1\">you</w>, <w>too</w>"), "you, too");
  EXPECT_EQ(chapter_text("<l sID=\"1\"/>one <l eID=\"1\"/><l sID=\"2\"/>two<l eID=\"2\"/>"), "one\ntwo");
  EXPECT_EQ(chapter_text("a<lb type=\"x-p\"/>b<div sID=\"g\" type=\"x-p\"/><div eID=\"g\" type=\"x-p\"/>c"),
            "a\nb\nc");
  EXPECT_EQ(chapter_text("<title type=\"psalm\">A <seg>Psalm</seg></title>text  &amp;\tmore"), "text & more");
}

TEST(Osis, DocumentsAreChapters) {
  const auto chapters = osis_chapters(
      "<div osisID=\"Gen\" sID=\"1\" type=\"book\"/>preface<chapter osisID=\"Gen.1\" sID=\"Gen.1\"/>one"
      "<chapter osisID=\"Gen.2\" sID=\"Gen.2\"/>two<chapter eID=\"Gen.1\"/> still two<chapter eID=\"Gen.2\"/>"
      "<div eID=\"1\" osisID=\"Gen\" type=\"book\"/>glossary");
  ASSERT_EQ(chapters.size(), 2u);
  EXPECT_EQ(chapters[0].id, "Gen.1");
  EXPECT_EQ(chapters[0].label, "Gen");
  EXPECT_EQ(chapters[0].text, "one");
  EXPECT_EQ(chapters[1].text, "two still two");
}

TEST(Wordnet, TheWordCountIsHexadecimal) {
  std::string line = "00001740 05 n 0a ";
  for (int i = 0; i < 10; ++i) line += "word_" + std::to_string(i) + " 0 ";
  line += "001 @ 00001930 n 0000 | the gloss; \"an | example\"  ";
  const auto entry = wordnet_entry(line);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->topic, "noun.animal");
  EXPECT_TRUE(entry->line.starts_with("word 0, word 1,"));
  EXPECT_TRUE(entry->line.ends_with("word 9: the gloss; \"an | example\"")) << entry->line;
}

TEST(Wordnet, MarksOfAdjectivesAreStripped) {
  const auto entry = wordnet_entry("00012345 00 a 03 living(a) 0 well-off(ip) 0 a(b) 0 000 | g");
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->line, "living, well-off, a(b): g");
}

TEST(Wordnet, LicenceLinesAreSkippedAndOthersRefused) {
  EXPECT_FALSE(wordnet_entry("  1 This software and database is provided"));
  expect_contains(error_of([] { wordnet_entry("00001740 99 n 01 x 0 000 | g"); }), {"topic"});
  expect_contains(error_of([] { wordnet_entry("00001740 05 n 01 x 0 000"); }), {"no gloss"});
  expect_contains(error_of([] { wordnet_entry("00001740 05 n zz x 0 000 | g"); }), {"number"});
}

TEST(Wordnet, ADocumentHolds64EntriesOfOneTopic) {
  std::string file = "  licence\n";
  for (int i = 0; i < 65; ++i) file += "00001740 05 n 01 w 0 000 | g" + std::to_string(i) + "  \n";
  file += "00001740 04 n 01 v 0 000 | h\n";
  const auto documents = wordnet_documents({file});
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[0].id, "noun.act/0000");
  EXPECT_EQ(documents[2].id, "noun.animal/0001");
  EXPECT_EQ(documents[2].text, "w: g64");
  EXPECT_TRUE(documents[1].text.starts_with("w: g0\nw: g1\n"));
}

TEST(Xhtml, NavigationIsLeftOutAndBlanksCollapse) {
  EXPECT_EQ(
      xhtml_text(
          "<html><head><title>T</title></head><body><div class=\"navheader\"><div>x</div></div>"
          "<div class=\"toc\"><dl><dt>y</dt></dl></div><h2>1.\xC2\xA0Head</h2><p>\n  some\n  <b>text</b> here"
          "</p><hr /><p>a &lt;b&gt; &amp; c&#10;&#xE9;</p></body></html>"),
      "1. Head\nsome text here\na <b> & c \xC3\xA9");
}

TEST(Xhtml, PreformattedTextIsVerbatim) {
  EXPECT_EQ(xhtml_text("<p>run</p><pre class=\"x\">\nif a:\n    <em>b</em>  c\n\nend\n</pre><p>then</p>"),
            "run\nif a:\n    b  c\n\nend\nthen");
}

TEST(Xhtml, CellsAreJoined) {
  EXPECT_EQ(
      xhtml_text(
          "<table><tr><th>A</th><th>B</th><th>C</th></tr>\n<tr><td> 1 </td><td>\xC2\xA0</td><td>3</td></tr>"
          "<tr><td>4</td><td> </td></tr></table>"),
      "A | B | C\n1 |  | 3\n4");
  EXPECT_EQ(xhtml_text("wo\xE2\x80\x8Brd"), "word");
}

TEST(Python, GeneratedTablesAreNotKept) {
  EXPECT_TRUE(is_kept_python_file("json/decoder.py"));
  EXPECT_TRUE(is_kept_python_file("encodings/utf_8.py"));
  EXPECT_FALSE(is_kept_python_file("encodings/cp1252.py"));
  EXPECT_FALSE(is_kept_python_file("pydoc_data/topics.py"));
  EXPECT_FALSE(is_kept_python_file("LICENSE.txt"));
}

TEST(TrimLines, KeepsIndentationAndBlankLinesInside) {
  EXPECT_EQ(trim_lines("\n  a  \n\f\n\tb\t\n\n"), "a\n\n\tb");
  EXPECT_EQ(trim_lines(" \n\t "), "");
}

}  // namespace
}  // namespace conclave::data
