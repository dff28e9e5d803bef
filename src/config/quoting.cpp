// SPDX-License-Identifier: Apache-2.0
#include <string_view>

#include <fmt/format.h>

#include "conclave/config/scalars.h"
#include "conclave/config/utf8.h"

namespace conclave::config {

namespace {

bool contains(std::string_view set, char c) {
  return set.find(c) != std::string_view::npos;
}

// Words that YAML 1.1 or 1.2 take for null, a boolean, a merge key or a default value.
bool is_reserved_word(std::string_view text) {
  static constexpr std::string_view kWords[] = {"null", "~",   "true", "false", "yes", "no",
                                                "on",   "off", "y",    "n",     "=",   "<<"};
  std::string lower;
  for (const char c : text) lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  for (const auto word : kWords) {
    if (lower == word) return true;
  }
  return false;
}

// YAML 1.1 knows octal, hexadecimal, base 60, dates, .inf and .nan: anything that starts like a number.
bool starts_like_number(std::string_view text) {
  const size_t sign = contains("+-", text[0]) && text.size() > 1 ? 1 : 0;
  if (contains("0123456789", text[sign])) return true;
  return text[sign] == '.' && text.size() > sign + 1 && contains("0123456789iInN.", text[sign + 1]) &&
         text.substr(sign, 3) != "../";
}

}  // namespace

bool is_safe_plain(const std::string& text) {
  if (text.empty() || contains(" -?:,[]{}#&*!|>'\"%@`", text.front()) || text.back() == ' ') {
    // A minus is an indicator only when it stands alone or begins "---".
    const bool minus_word =
        text.size() > 1 && text[0] == '-' && text[1] != ' ' && text[1] != '-' && text.back() != ' ';
    if (!minus_word) return false;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (contains(",[]{}\"\\?", c)) return false;
    if (c == ':' && (i + 1 == text.size() || text[i + 1] == ' ')) return false;
    if (c == '#' && text[i - 1] == ' ') return false;
    const size_t length = utf8_length(text, i);
    if (length == 0 || is_unprintable(utf8_decode(text, i))) return false;
    i += length - 1;
  }
  return true;
}

bool needs_quotes(const std::string& text) {
  return !is_safe_plain(text) || is_reserved_word(text) || starts_like_number(text);
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    const char32_t c = length > 0 ? utf8_decode(text, i) : static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (length == 0 || is_unprintable(c)) {
      const auto code = static_cast<unsigned>(c);
      out += c <= 0xFF     ? fmt::format("\\x{:02x}", code)
             : c <= 0xFFFF ? fmt::format("\\u{:04x}", code)
                           : fmt::format("\\U{:08x}", code);
    } else {
      out += std::string_view(text).substr(i, length);
    }
    i += length > 0 ? length : 1;
  }
  return out + '"';
}

}  // namespace conclave::config
