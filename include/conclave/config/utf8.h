// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

// Internal to the config room.
namespace conclave::config {

// Length in bytes of the well-formed UTF-8 character at text[at]; 0 when there is none (overlong forms,
// surrogates and code points above U+10FFFF are not well-formed).
size_t utf8_length(std::string_view text, size_t at);

// The character at text[at], which must be well-formed.
char32_t utf8_decode(std::string_view text, size_t at);

// Offset of the first byte that is not part of well-formed UTF-8, or npos.
size_t first_invalid_utf8(std::string_view text);

// Whether a terminal or another YAML reader could take the character for something else than itself: control
// characters, Unicode line ends, the byte order mark, noncharacters.
bool is_unprintable(char32_t c);

// `text` for a message: at most `limit` bytes (cut between characters, then "..."), unprintable and invalid
// bytes as '?'.
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace conclave::config
