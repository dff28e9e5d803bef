// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/utf8.h"

namespace conclave::config {

namespace {
unsigned byte_at(std::string_view text, size_t at) {
  return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
}
}  // namespace

size_t utf8_length(std::string_view text, size_t at) {
  const unsigned first = byte_at(text, at);
  if (at >= text.size()) return 0;
  if (first < 0x80) return 1;
  const size_t length = first >= 0xC2 && first < 0xE0    ? 2
                        : (first >> 4) == 14             ? 3
                        : first >= 0xF0 && first <= 0xF4 ? 4
                                                         : 0;
  for (size_t k = 1; k < length; ++k) {
    if ((byte_at(text, at + k) >> 6) != 2) return 0;
  }
  if (length < 3) return length;
  const char32_t c = utf8_decode(text, at);
  const bool overlong = c < (length == 3 ? 0x800u : 0x10000u);
  return overlong || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000) ? 0 : length;
}

char32_t utf8_decode(std::string_view text, size_t at) {
  const unsigned first = byte_at(text, at);
  if (first < 0x80) return first;
  const int extra = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
  char32_t c = first & (0x3Fu >> extra);
  for (int k = 1; k <= extra; ++k) c = (c << 6) | (byte_at(text, at + static_cast<size_t>(k)) & 0x3F);
  return c;
}

size_t first_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

bool is_unprintable(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029 || c == 0xFEFF ||
         (c & 0xFFFE) == 0xFFFE;
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (out.size() >= limit) return out + "...";
    const size_t length = utf8_length(text, i);
    if (length == 0 || is_unprintable(utf8_decode(text, i))) {
      out += '?';
    } else {
      out += text.substr(i, length);
    }
    i += length == 0 ? 1 : length;
  }
  return out;
}

}  // namespace conclave::config
