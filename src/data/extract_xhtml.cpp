// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "conclave/data/extract.h"
#include "markup.h"

namespace conclave::data {

namespace {

constexpr std::array<std::string_view, 21> kBlockTags = {"p",  "div", "dt", "dd", "li",  "h1",    "h2",
                                                         "h3", "h4",  "h5", "h6", "pre", "table", "tr",
                                                         "ul", "ol",  "dl", "br", "hr",  "thead", "tbody"};

bool is_block_tag(std::string_view name) {
  return std::find(kBlockTags.begin(), kBlockTags.end(), name) != kBlockTags.end();
}

bool is_cell_tag(std::string_view name) {
  return name == "td" || name == "th";
}

bool is_left_out(const MarkupPiece& tag) {
  const std::string_view kind = tag.attribute("class");
  return tag.name == "head" || kind == "navheader" || kind == "navfooter" || kind == "toc";
}

// Collects text. A line break, a cell border or a blank is written only when something visible follows it.
class PageText {
 public:
  void block() {
    if (after_verbatim_newline_) text_.pop_back();  // the one before </pre>
    after_verbatim_newline_ = false;
    pending_break_ = first_cell_ = skip_newline_ = true;
    pending_blank_ = false;
    pending_cells_ = 0;
  }

  void cell() {
    if (!pending_break_ || !first_cell_) ++pending_cells_;
    first_cell_ = false;
    pending_blank_ = false;
  }

  void flowing(std::string_view text) {
    for (const char c : text) {
      if (c == ' ' || c == '\n' || c == '\t' || c == '\r')
        pending_blank_ = true;
      else
        put(c);
    }
  }

  void verbatim(std::string_view text) {
    for (const char c : text) {
      const bool skip = c == '\n' && pending_break_ && skip_newline_;  // the one after <pre>
      skip_newline_ = false;
      if (skip) continue;
      put(c);
      after_verbatim_newline_ = c == '\n';
    }
  }

  std::string finish() { return trim_lines(text_); }

 private:
  void put(char c) {
    if (pending_break_ && !text_.empty()) text_ += '\n';
    for (int i = 0; i < pending_cells_; ++i) text_ += " | ";
    if (pending_blank_ && !pending_break_ && pending_cells_ == 0) text_ += ' ';
    pending_break_ = pending_blank_ = after_verbatim_newline_ = skip_newline_ = false;
    pending_cells_ = 0;
    text_ += c;
  }

  std::string text_;
  bool pending_break_ = true, pending_blank_ = false, after_verbatim_newline_ = false;
  bool first_cell_ = true;     // no cell since the break
  bool skip_newline_ = false;  // nothing since the break
  int pending_cells_ = 0;
};

}  // namespace

std::string xhtml_text(std::string_view page) {
  using Kind = MarkupPiece::Kind;
  PageText result;
  struct Open {
    std::string_view name;
    bool left_out = false;
  };
  std::vector<Open> open;
  int left_out = 0, verbatim = 0;
  MarkupScanner scanner(page);
  for (MarkupPiece piece; scanner.next(piece);) {
    if (piece.kind == Kind::kOther) continue;
    if (piece.kind == Kind::kText) {
      if (left_out > 0) continue;
      std::string text = decode_entities(piece.raw);
      replace_all(text, "\xC2\xA0", " ");
      replace_all(text, "\xE2\x80\x8B", "");  // zero-width blank
      if (verbatim > 0)
        result.verbatim(text);
      else
        result.flowing(text);
      continue;
    }
    if (piece.kind == Kind::kOpen) {
      open.push_back({piece.name, is_left_out(piece)});
      left_out += open.back().left_out ? 1 : 0;
      verbatim += piece.name == "pre" ? 1 : 0;
    }
    bool closes = piece.kind == Kind::kClose;
    while (closes && !open.empty()) {  // also closes what was left open inside
      const Open last = open.back();
      open.pop_back();
      left_out -= last.left_out ? 1 : 0;
      verbatim -= last.name == "pre" ? 1 : 0;
      closes = last.name != piece.name;
    }
    if (left_out > 0) continue;
    if (is_block_tag(piece.name))
      result.block();
    else if (is_cell_tag(piece.name) && piece.kind != Kind::kClose)
      result.cell();
  }
  return result.finish();
}

}  // namespace conclave::data
