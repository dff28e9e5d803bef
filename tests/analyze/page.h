// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "train/temporary_folder.h"

namespace conclave::analyze {

// What check_page.py (an XML parser that is not ours) finds wrong with a page.
inline std::string page_problems(const std::string& page) {
  const train::TemporaryFolder folder;
  std::ofstream(folder / "page.html", std::ios::binary) << page;
  const std::string command = fmt::format("python3 '{}/tests/analyze/check_page.py' '{}' 2>&1",
                                          CONCLAVE_SOURCE_DIR, (folder / "page.html").string());
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return "python3 did not start";
  std::string output;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) output += static_cast<char>(c);
  if (pclose(pipe) != 0) output += " (the checker failed)";
  return output;
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace conclave::analyze
