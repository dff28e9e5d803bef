// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "conclave/train/safetensors.h"

// One checkpoint on disk: a folder `step-00001000/` with safetensors files, `state.json` and `manifest.json`,
// which is written last and holds sizes and checksums of everything else. docs/checkpoints.md describes the
// layout.
namespace conclave::train {

inline constexpr int kCheckpointFormatVersion = 1;
inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kStateFile = "state.json";

struct CheckpointFile {
  std::string name = {};
  uint64_t size = 0;
  uint64_t checksum = 0;                         // xxh3-64 of the whole file
  std::map<std::string, uint64_t> tensors = {};  // xxh3-64 of each tensor's bytes
};

struct CheckpointManifest {
  int64_t step = 0;
  int64_t tokens = 0;
  std::string config_hash = {};
  std::map<std::string, std::string> attributes = {};  // e.g. world layout, revision
  std::vector<CheckpointFile> files = {};              // in the order of writing; state.json is the last

  uint64_t total_bytes() const;
};

// JSON text that carries its own checksum, so that a changed digit anywhere in it is noticed.
std::string render_manifest(const CheckpointManifest& manifest);
// Throws Error (kData) that names `file`.
CheckpointManifest parse_manifest(const std::string& text, const std::string& file);

uint64_t xxh3_64(std::span<const std::byte> bytes);

class Checkpoint {
 public:
  // Reads the manifest and checks that every file is there with its size. Throws Error (kData).
  explicit Checkpoint(std::filesystem::path folder);

  const CheckpointManifest& manifest() const { return manifest_; }
  const std::filesystem::path& folder() const { return folder_; }

  // One file, its checksums recomputed. Throws Error (kData) that names file and damaged tensors.
  SafetensorsFile file(const std::string& name) const;
  // The text of state.json, its checksum recomputed.
  std::string state() const;

  // Reads everything: one line per damaged file, naming the damaged tensors. Empty: all is well.
  std::vector<std::string> problems() const;
  // Throws Error (kData) with all problems.
  void verify() const;

 private:
  const CheckpointFile& entry(const std::string& name) const;

  std::filesystem::path folder_;
  CheckpointManifest manifest_;
};

}  // namespace conclave::train
