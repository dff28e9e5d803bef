// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdio>
#include <filesystem>
#include <span>
#include <string_view>

namespace conclave::data {

// A new file that is written from front to back under a temporary name and renamed in `commit`; removed when
// destroyed before that. Errors name the file and the system's reason.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  template <class T>
  void write(std::span<const T> values) {
    write(values.data(), values.size_bytes());
  }
  // Replaces bytes that were already written.
  void overwrite(int64_t offset, const void* data, size_t size);
  void commit();

 private:
  [[noreturn]] void fail(const char* action) const;
  std::filesystem::path path_, temporary_;
  std::FILE* file_ = nullptr;
};

}  // namespace conclave::data
