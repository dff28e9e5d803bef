// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "conclave/train/checkpoint.h"

namespace conclave::train {

// A view that may keep its bytes itself.
struct StoredTensor : TensorView {
  std::shared_ptr<const std::vector<std::byte>> assembled = {};
};

// The entry of a file's metadata that makes a tensor of it `num_rows` rows of a larger one: the name and
// value.
std::pair<std::string, std::string> rows_entry(const std::string& tensor, int64_t first_row,
                                               int64_t num_rows);

// Tensors of one or several safetensors files, each under one name, whole or in parts of their rows: a
// checkpoint is read the same whatever ranks wrote it.
class TensorSet {
 public:
  explicit TensorSet(std::vector<SafetensorsFile> files);
  explicit TensorSet(const std::filesystem::path& file);
  TensorSet(TensorSet&&) = default;
  // The files NAME.safetensors or NAME-00001-of-00004.safetensors and so on of a checkpoint, their checksums
  // recomputed. Throws Error (kData) that names what is damaged or there twice, and rows that are missing.
  TensorSet(const Checkpoint& checkpoint, const std::string& name);

  bool contains(const std::string& name) const { return places_.count(name) != 0; }
  // Throws Error (kData) that names the files and lists near names.
  StoredTensor at(const std::string& name) const;
  // Shape and type of the whole tensor, without bytes; throws likewise.
  const TensorView& outline(const std::string& name) const;
  // Copies rows of it (of the first dimension) to `to`.
  void read_rows(const std::string& name, int64_t first_row, int64_t num_rows, std::byte* to) const;
  std::vector<std::string> names() const;  // sorted
  // The file that holds a tensor, for messages.
  std::string file_of(const std::string& name) const;
  // Of all files, for messages.
  std::string place() const;

 private:
  struct Part {
    size_t file = 0;
    const TensorView* view = nullptr;
    int64_t first_row = 0, num_rows = 1;
  };
  struct Place {
    TensorView outline = {};
    std::vector<Part> parts = {};  // by their rows
  };
  void add(size_t file, const TensorView& view);
  void check(const std::string& name, Place& place) const;

  std::vector<SafetensorsFile> files_;
  std::unordered_map<std::string, Place> places_;
};

}  // namespace conclave::train
