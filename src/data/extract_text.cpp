// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "conclave/data/extract.h"

namespace conclave::data {

namespace {
constexpr std::string_view kTrimmed = " \t\n\r\f\v";
}  // namespace

std::string trim_lines(std::string_view text) {
  const auto trim_end = [](std::string_view part) {
    return part.substr(0, part.find_last_not_of(kTrimmed) + 1);
  };
  text = trim_end(text);
  text.remove_prefix(std::min(text.find_first_not_of(kTrimmed), text.size()));
  std::string result;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return result += trim_end(text);
    result += trim_end(text.substr(0, end));
    result += '\n';
    text.remove_prefix(end + 1);
  }
  return result;
}

bool is_kept_python_file(const std::string& path) {
  if (!path.ends_with(".py") || path.starts_with("pydoc_data/") || path.starts_with("_sysconfigdata"))
    return false;
  if (!path.starts_with("encodings/")) return true;
  // The rest of the folder is about 100 near copies of one character table.
  const std::string name = path.substr(path.find('/') + 1);
  for (const std::string_view kept : {"__init__.", "aliases.", "idna.", "punycode.", "utf_"}) {
    if (name.starts_with(kept)) return true;
  }
  return false;
}

}  // namespace conclave::data
