// SPDX-License-Identifier: Apache-2.0
#include <cctype>

#include "conclave/data/extract.h"
#include "markup.h"

namespace conclave::data {

namespace {

constexpr char kNotePlace = '\x01';  // stands for a note until its neighbours are known
constexpr std::string_view kOpeningQuotes[] = {"\xE2\x80\x9C", "\xE2\x80\x98"};
constexpr std::string_view kOsisBlanks = " \t\n\r\f\v";

bool is_ascii_alnum(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// A word can end here: no blank, opening quote or bracket.
bool ends_word(std::string_view before) {
  if (before.empty() || kOsisBlanks.find(before.back()) != std::string_view::npos || before.back() == '(')
    return false;
  for (const auto quote : kOpeningQuotes) {
    if (before.ends_with(quote)) return false;
  }
  return true;
}

// A word begins here, perhaps after an opening quote or bracket.
bool begins_word(std::string_view after) {
  if (after.empty()) return false;
  for (const auto quote : kOpeningQuotes) {
    if (after.starts_with(quote)) return true;
  }
  const auto first = static_cast<unsigned char>(after.front());
  const bool is_punctuation =
      after.starts_with("\xE2\x80") || after.starts_with("\xE2\x81");  // U+2000 to U+207F
  return first == '(' || is_ascii_alnum(first) || (first >= 0x80 && !is_punctuation);
}

std::string place_notes(std::string_view text) {
  std::string result;
  size_t at = 0;
  while (at < text.size()) {
    const size_t begin = std::min(text.find(kNotePlace, at), text.size());
    result += text.substr(at, begin - at);
    at = std::min(text.find_first_not_of(kNotePlace, begin), text.size());
    if (at > begin && ends_word(text.substr(0, begin)) && begins_word(text.substr(at))) result += ' ';
  }
  return result;
}

// One blank between words, one newline between lines.
std::string collapse_blanks(std::string_view text) {
  std::string result;
  bool blank = false, newline = false;
  for (const char c : text) {
    if (c == '\n') {
      newline = true;
    } else if (c == ' ' || c == '\t') {
      blank = true;
    } else {
      if (newline)
        result += '\n';
      else if (blank)
        result += ' ';
      blank = newline = false;
      result += c;
    }
  }
  return trim_lines(result);
}

Document finish_chapter(std::string_view id, const std::string& text) {
  return {.text = collapse_blanks(place_notes(decode_entities(text))),
          .label = std::string(id.substr(0, id.find('.'))),
          .id = std::string(id)};
}

bool is_line_break(const MarkupPiece& tag) {
  if (tag.name == "lb") return true;
  if (tag.name == "l") return !tag.attribute("eID").empty();
  return tag.name == "div" && tag.attribute("type") == "x-p";
}

}  // namespace

std::vector<Document> osis_chapters(std::string_view osis) {
  using Kind = MarkupPiece::Kind;
  std::vector<Document> chapters;
  std::string text;
  std::string_view id, skipped;  // the open chapter; the element that is being left out
  int depth = 0;
  const auto close = [&] {
    if (!id.empty()) chapters.push_back(finish_chapter(id, text));
    text.clear();
    id = {};
  };
  MarkupScanner scanner(osis);
  for (MarkupPiece piece; scanner.next(piece);) {
    if (!skipped.empty()) {
      if (piece.name == skipped && piece.kind == Kind::kOpen) ++depth;
      if (piece.name == skipped && piece.kind == Kind::kClose && --depth == 0) skipped = {};
    } else if (piece.kind == Kind::kText) {
      if (!id.empty()) text += piece.raw;
    } else if (piece.name == "chapter" && !piece.attribute("sID").empty()) {
      close();
      id = piece.attribute("osisID");
    } else if (piece.name == "div" && piece.attribute("type") == "book") {
      close();
    } else if (piece.kind == Kind::kOpen && (piece.name == "note" || piece.name == "title")) {
      if (piece.name == "note" && !id.empty()) text += kNotePlace;
      skipped = piece.name;
      depth = 1;
    } else if (!id.empty() && is_line_break(piece)) {
      text += '\n';
    }
  }
  close();
  return chapters;
}

}  // namespace conclave::data
