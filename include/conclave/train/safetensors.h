// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "conclave/core/files.h"
#include "conclave/train/file_writer.h"

// The safetensors format: a JSON header (name -> dtype, shape, place) and the raw little-endian bytes. Plain
// bytes here; the model room turns them into tensors.
namespace conclave::train {

struct TensorView {
  std::string name = {};
  std::string dtype = {};           // the format's spelling: "F32", "BF16", "F64", "I64", "U8", "BOOL", ...
  std::vector<int64_t> shape = {};  // empty: a scalar
  std::span<const std::byte> bytes =
      {};  // row-major; when read, aligned only as far as the file's writer cared
  std::shared_ptr<const void> owner = {};  // of the bytes, where nobody else keeps them
};

using SafetensorsMetadata = std::map<std::string, std::string>;

struct SafetensorsContent {
  std::vector<TensorView> tensors = {};  // in the order of their bytes
  SafetensorsMetadata metadata = {};
};

// Limits of reader and writer, so that what we write can be read back and a hostile file cannot ask for much.
inline constexpr uint64_t kSafetensorsMaxHeaderBytes = 100'000'000;
inline constexpr size_t kSafetensorsMaxTensors = 1'000'000;
inline constexpr size_t kSafetensorsMaxRank = 32;
inline constexpr size_t kSafetensorsMaxNameBytes = 4096;

// Strict reading of a whole file's bytes: sizes are checked before anything is allocated, every byte of the
// buffer belongs to exactly one tensor. `file` is for messages; the views point into `bytes`. Throws Error
// (kData).
SafetensorsContent parse_safetensors(std::span<const std::byte> bytes, const std::string& file);

// Streams header and tensors into `out` (without finish) and returns the number of bytes. Tensors are written
// by falling element size, then by name; the header is padded to a multiple of 8, so that each tensor is
// aligned, and always carries `format: pt`, which other readers insist on. Throws Error for a tensor that no
// reader would take.
uint64_t write_safetensors(FileWriter& out, const std::string& file, const std::vector<TensorView>& tensors,
                           const SafetensorsMetadata& metadata);
// The same into a file, which appears whole or not at all (temporary file, fsync, rename). Saving over the
// file that the views are mapped from is safe: the old bytes live until they are unmapped.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                       const SafetensorsMetadata& metadata = {});
// Bytes of the file that write_safetensors would make.
uint64_t safetensors_size(const std::string& file, const std::vector<TensorView>& tensors,
                          const SafetensorsMetadata& metadata);

// A file mapped into memory. Writers replace files by rename and never change them in place; a file that
// another program truncates while it is mapped ends the process with SIGBUS, so copy such files first.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::vector<TensorView>& tensors() const { return content_.tensors; }
  std::vector<std::string> names() const;  // sorted
  bool contains(const std::string& name) const { return index_.count(name) != 0; }
  // Throws Error (kData) that names file and tensor and lists near names.
  const TensorView& at(const std::string& name) const;
  const SafetensorsMetadata& metadata() const { return content_.metadata; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  MappedFile mapped_;
  SafetensorsContent content_;
  std::unordered_map<std::string, size_t> index_;
};

// "did you mean 'a.weight'? the file holds 3 tensors: a.weight, b.weight, c.weight", for a name that is not
// there.
std::string describe_near_names(const std::string& name, const std::vector<std::string>& known);

}  // namespace conclave::train
