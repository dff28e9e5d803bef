// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/parse.h"
#include "conclave/config/utf8.h"

namespace conclave::config {

namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 20;

Origin origin_at(const std::shared_ptr<const Source>& source, size_t offset) {
  const std::string& text = source->text;
  const auto begin = text.begin();
  const size_t line_begin = offset == 0 ? 0 : text.rfind('\n', offset - 1) + 1;  // npos + 1 == 0
  return {.source = source,
          .line = 1 + static_cast<int>(std::count(begin, begin + static_cast<ptrdiff_t>(offset), '\n')),
          .column = 1 + static_cast<int>(offset - line_begin)};
}

// Offset of the first byte that YAML does not allow in a text (other than through an escape), or npos.
size_t first_control_character(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    if ((c < 0x20 && c != '\t' && c != '\n') || c == 0x7F) return i;
  }
  return std::string::npos;
}

}  // namespace

bool check_text(const std::shared_ptr<const Source>& source, Problems& problems) {
  const std::string& text = source->text;
  if (text.size() > kMaxTextBytes) {
    problems.add(origin_at(source, 0),
                 fmt::format("the text has {} bytes; at most {} are read", text.size(), kMaxTextBytes),
                 "a configuration is a small file; is this a data file?");
    return false;
  }
  if (const size_t bad = first_invalid_utf8(text); bad != std::string::npos) {
    problems.add(origin_at(source, bad), fmt::format("byte {} is not valid UTF-8", bad),
                 "save the file as UTF-8");
    return false;
  }
  if (const size_t bad = first_control_character(text); bad != std::string::npos) {
    problems.add(origin_at(source, bad),
                 fmt::format("control character 0x{:02x}", static_cast<unsigned>(text[bad])),
                 text[bad] == '\r' ? "end lines with \\n or \\r\\n"
                                   : "remove it, or write it as an escape in \"...\"");
    return false;
  }
  bool good = true;
  for (size_t line = 0; line < text.size(); line = std::min(text.find('\n', line), text.size() - 1) + 1) {
    const size_t content = text.find_first_not_of(" \t", line);
    if (content == std::string::npos || text[content] == '\n' || text[content] == '\r' ||
        text[content] == '#')
      continue;
    const size_t tab = text.find('\t', line);
    if (tab > content) continue;
    problems.add(origin_at(source, tab), "a tab in the indentation", "indent with spaces");
    good = false;
  }
  return good;
}

}  // namespace conclave::config
