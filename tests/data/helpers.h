// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/core/log.h"
#include "conclave/data/dataset.h"

namespace conclave::data {

// A fresh folder that goes away with the object; also the cache of the library meanwhile.
class TestFolder {
 public:
  TestFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "conclave-data-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("cannot create " + pattern);
    path_ = pattern;
    ::setenv("CONCLAVE_CACHE", (path_ / "cache").c_str(), 1);
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& content) const {
    const auto path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

 private:
  std::filesystem::path path_;
};

// Collects what was logged.
struct LogLines {
  std::vector<std::string> lines = {};
  Log log() {
    return Log([this](LogLevel, const std::string& message) { lines.push_back(message); });
  }
  bool mention(const std::string& text) const {
    for (const auto& line : lines) {
      if (line.find(text) != std::string::npos) return true;
    }
    return false;
  }
};

// The message of the error that `call` throws.
template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

inline void expect_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const auto& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

// n jsonl documents of different lengths in three domains.
inline std::string toy_jsonl(int n, const std::string& prefix = "") {
  std::string lines;
  for (int i = 0; i < n; ++i) {
    std::string text = prefix + "document " + std::to_string(i) + " ";
    for (int k = 0; k < (i * 7) % 23; ++k) text += static_cast<char>('a' + (i + k * k) % 26);
    lines += R"({"text": ")" + text + R"(", "topic": "t)" + std::to_string(i % 3) + "\"}\n";
  }
  return lines;
}

inline SourceOptions file_source(const std::filesystem::path& path, double weight = 1.0) {
  return {.path = path.string(), .weight = weight, .label_field = "topic"};
}

inline Dataset toy_dataset(const TestFolder& folder, int n = 41, Packing packing = Packing::kConcat,
                           int64_t seq_length = 13) {
  DataOptions options = {.seq_length = seq_length, .packing = packing};
  options.train = {file_source(folder.write("toy.jsonl", toy_jsonl(n)))};
  options.valid.fraction = 0.2;
  return open_dataset(options, byte_tokenizer(), Log());
}

}  // namespace conclave::data
