// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/data/reader.h"

// From the files of distribution packages to documents of plain text. Pure functions on bytes; they throw
// Error (kData) when the bytes are not of the format.
namespace conclave::data {

// Blanks at line ends and around the whole are removed (as ASCII white space); nothing else changes.
std::string trim_lines(std::string_view text);

// ---- SWORD zText modules, OSIS mark-up
// ----------------------------------------------------------------------------

// All verses of one testament in the order of its verse table, concatenated. `blocks` (.bzs): offset, packed
// size and size of each block; `verses` (.bzv): block, offset and 16-bit size of each verse; `data` (.bzz):
// zlib blocks. Slots that share one place are taken once. A size of 64 KiB and more wraps in the table: it is
// recovered from the next used offset.
std::string sword_text(std::string_view blocks, std::string_view verses, std::string_view data);

// One document a chapter (id "Gen.1", label "Gen"). Titles, notes and what stands before a book's first
// chapter are left out. A note becomes one blank where it alone stands between two words.
std::vector<Document> osis_chapters(std::string_view osis);

// ---- WordNet
// ------------------------------------------------------------------------------------------------------

struct WordnetEntry {
  std::string topic = {};  // "noun.animal"
  std::string line = {};   // "lemma, lemma: gloss"
};

// One line of data.{noun,verb,adj,adv}; nothing for the licence lines, which begin with two blanks.
std::optional<WordnetEntry> wordnet_entry(std::string_view line);

// 64 entries of one topic a document (id "noun.animal/0003", label "noun.animal"), topics by name.
std::vector<Document> wordnet_documents(const std::vector<std::string>& files);

// ---- XHTML
// --------------------------------------------------------------------------------------------------------

// The text of a page: head, navigation and tables of contents left out, blanks collapsed outside <pre>, a
// line break at block tags, table cells joined by " | ". Expects well-formed XHTML.
std::string xhtml_text(std::string_view page);

// ---- Python sources
// -----------------------------------------------------------------------------------------------

// Whether the file of the standard library is kept: generated tables and data are not.
bool is_kept_python_file(const std::string& relative_path);

}  // namespace conclave::data
