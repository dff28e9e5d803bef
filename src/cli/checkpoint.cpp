// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/core/error.h"
#include "conclave/train/checkpoint.h"
#include "conclave/train/safetensors.h"

namespace conclave::cli {

namespace {

void list_tensors(const train::SafetensorsFile& file) {
  for (const auto& tensor : file.tensors()) {
    fmt::print("{:<6} [{}]  {}\n", tensor.dtype, fmt::join(tensor.shape, ", "), tensor.name);
  }
}

int list(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    list_tensors(train::SafetensorsFile(path));
    return kDone;
  }
  const train::Checkpoint checkpoint(path);
  fmt::print("step {}, {} tokens, {} bytes\n", checkpoint.manifest().step, checkpoint.manifest().tokens,
             checkpoint.manifest().total_bytes());
  for (const auto& file : checkpoint.manifest().files) {
    fmt::print("{}: {} bytes, {} tensors\n", file.name, file.size, file.tensors.size());
    if (file.name.ends_with(".safetensors")) list_tensors(checkpoint.file(file.name));
  }
  return kDone;
}

int verify(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    train::Checkpoint(path).verify();
  } else {
    train::SafetensorsFile{path};
  }
  fmt::print("{}: ok\n", path.string());
  return kDone;
}

}  // namespace

void add_checkpoint(CLI::App& app, Action& action) {
  auto* sub = app.add_subcommand("checkpoint", "List and verify checkpoints and safetensors files.");
  sub->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  const auto add = [&](const char* name, const char* doc, int (*body)(const std::filesystem::path&)) {
    auto* command = sub->add_subcommand(name, doc);
    command->add_option("path", *path, "A checkpoint (step-... folder) or one safetensors file.")->required();
    command->callback([&action, path, body] { action = [path, body] { return body(*path); }; });
  };
  add("ls", "Files and tensors.", list);
  add("verify", "Recompute every checksum; names what is damaged.", verify);
}

}  // namespace conclave::cli
