// SPDX-License-Identifier: Apache-2.0
#include "markup.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

namespace conclave::data {

namespace {

void append_utf8(std::string& text, uint32_t code) {
  const auto tail = [&](int shift) { text.push_back(static_cast<char>(0x80 | ((code >> shift) & 0x3F))); };
  if (code < 0x80) {
    text.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    text.push_back(static_cast<char>(0xC0 | code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | code >> 12));
    tail(6), tail(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | code >> 18));
    tail(12), tail(6), tail(0);
  }
}

// Appends what "&name;" stands for; false when it is unknown.
bool append_entity(std::string& text, std::string_view name) {
  struct Named {
    std::string_view name;
    std::string_view text;
  };
  constexpr std::array<Named, 6> kNamed = {
      {{"lt", "<"}, {"gt", ">"}, {"amp", "&"}, {"quot", "\""}, {"apos", "'"}, {"nbsp", "\xC2\xA0"}}};
  for (const auto& known : kNamed) {
    if (known.name == name) {
      text += known.text;
      return true;
    }
  }
  if (!name.starts_with('#')) return false;
  name.remove_prefix(1);
  const int base = name.starts_with('x') || name.starts_with('X') ? 16 : 10;
  if (base == 16) name.remove_prefix(1);
  uint32_t code = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), code, base);
  const bool is_surrogate = code >= 0xD800 && code < 0xE000;
  if (error != std::errc() || end != name.data() + name.size() || code == 0 || code > 0x10FFFF ||
      is_surrogate) {
    return false;
  }
  append_utf8(text, code);
  return true;
}

}  // namespace

std::string_view MarkupPiece::attribute(std::string_view key) const {
  std::string wanted = " ";
  wanted.append(key).append("=\"");
  const size_t at = raw.find(wanted);
  if (at == std::string_view::npos) return {};
  const size_t begin = at + wanted.size();
  return raw.substr(begin, raw.find('"', begin) - begin);
}

bool MarkupScanner::next(MarkupPiece& piece) {
  if (rest_.empty()) return false;
  size_t end = 0;
  if (rest_.front() != '<') {
    end = std::min(rest_.find('<'), rest_.size());
    piece = {.kind = MarkupPiece::Kind::kText, .raw = rest_.substr(0, end)};
  } else if (rest_.starts_with("<!--")) {
    end = std::min(rest_.find("-->"), rest_.size() - 3) + 3;
    piece = {.kind = MarkupPiece::Kind::kOther, .raw = rest_.substr(0, end)};
  } else {
    end = std::min(rest_.find('>'), rest_.size() - 1) + 1;
    const std::string_view tag = rest_.substr(0, end);
    const bool is_close = tag.starts_with("</");
    const size_t begin = is_close ? 2 : 1;
    piece.kind = tag.starts_with("<!") || tag.starts_with("<?") ? MarkupPiece::Kind::kOther
                 : is_close                                     ? MarkupPiece::Kind::kClose
                 : tag.ends_with("/>")                          ? MarkupPiece::Kind::kEmpty
                                                                : MarkupPiece::Kind::kOpen;
    piece.raw = tag;
    piece.name = tag.substr(begin, tag.find_first_of(" \t\n/>", begin) - begin);
  }
  rest_.remove_prefix(end);
  return true;
}

std::string decode_entities(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t begin = std::min(text.find('&'), text.size());
    result += text.substr(0, begin);
    text.remove_prefix(begin);
    if (text.empty()) break;
    const size_t end = text.substr(0, 12).find(';');
    if (end != std::string_view::npos && append_entity(result, text.substr(1, end - 1))) {
      text.remove_prefix(end + 1);
    } else {
      result.push_back('&');
      text.remove_prefix(1);
    }
  }
  return result;
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::string result;
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, begin)) {
    result.append(text, begin, at - begin).append(to);
    begin = at + from.size();
  }
  if (begin == 0) return;
  text = result.append(text, begin);
}

}  // namespace conclave::data
