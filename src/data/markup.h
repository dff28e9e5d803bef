// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>

namespace conclave::data {

// A piece of mark-up: a tag or the text between two tags.
struct MarkupPiece {
  enum class Kind {
    kText,
    kOpen,
    kClose,
    kEmpty,
    kOther
  } kind = Kind::kText;        // kEmpty: <br/>; kOther: <!..> <?..>
  std::string_view name = {};  // of a tag
  std::string_view raw = {};   // the text, or the tag with its brackets

  // The attribute's value, or "".
  std::string_view attribute(std::string_view name) const;
};

// Walks over well-formed XML without building a tree.
class MarkupScanner {
 public:
  explicit MarkupScanner(std::string_view source) : rest_(source) {}
  bool next(MarkupPiece& piece);

 private:
  std::string_view rest_;
};

// &lt; &gt; &amp; &quot; &apos; &nbsp; and numeric references; others stay as they are.
std::string decode_entities(std::string_view text);

// Replaces every `from` by `to`.
void replace_all(std::string& text, std::string_view from, std::string_view to);

}  // namespace conclave::data
