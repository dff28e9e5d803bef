// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "commands.h"
#include "compare_tensors.h"
#include "conclave/core/error.h"
#include "conclave/train/checkpoint.h"
#include "conclave/train/safetensors.h"
#include "conclave/train/tensor_set.h"

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

constexpr const char* kKinds[] = {"model", "optimizer"};

void describe(const std::string& what, const train::TensorSet& set, size_t num_files) {
  std::map<std::string, int64_t> values;  // by type
  for (const auto& name : set.names()) {
    const auto& view = set.outline(name);
    int64_t count = 1;
    for (const int64_t size : view.shape) count *= size;
    values[view.dtype] += count;
  }
  std::vector<std::string> parts;
  for (const auto& [type, count] : values) parts.push_back(fmt::format("{} values {}", count, type));
  fmt::print("{}: {} tensors, {}, in {} file{}\n", what, set.names().size(), fmt::join(parts, ", "),
             num_files, num_files == 1 ? "" : "s");
}

int inspect(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    describe(path.filename(), train::TensorSet(path), 1);
    return kDone;
  }
  const train::Checkpoint checkpoint(path);
  const auto& manifest = checkpoint.manifest();
  fmt::print("step {}, {} tokens, {} bytes\n", manifest.step, manifest.tokens, manifest.total_bytes());
  for (const char* kind : kKinds) {
    const auto files = std::count_if(manifest.files.begin(), manifest.files.end(),
                                     [&](const auto& file) { return file.name.rfind(kind, 0) == 0; });
    describe(kind, train::TensorSet(checkpoint, kind), static_cast<size_t>(files));
  }
  fmt::print("state: {}\n", checkpoint.state());
  return kDone;
}

// Whatever ranks wrote them: tensors are compared by name.
int diff(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::vector<std::string> lines;
  if (std::filesystem::is_directory(a) && std::filesystem::is_directory(b)) {
    const train::Checkpoint first(a), second(b);
    for (const char* kind : kKinds) {
      const auto part = compare_tensors({first, kind}, {second, kind}, a.string(), b.string());
      lines.insert(lines.end(), part.begin(), part.end());
    }
    if (first.state() != second.state())
      lines.push_back(
          fmt::format("state: {} in {}, {} in {}", first.state(), a.string(), second.state(), b.string()));
  } else {
    lines = compare_tensors(train::TensorSet(a), train::TensorSet(b), a.string(), b.string());
  }
  for (const auto& line : lines) fmt::print("{}\n", line);
  if (lines.empty()) fmt::print("the same\n");
  return lines.empty() ? kDone : kFailed;
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
  auto* sub = app.add_subcommand("checkpoint", "List, verify and compare checkpoints and safetensors files.");
  sub->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  const auto add = [&](const char* name, const char* doc, int (*body)(const std::filesystem::path&)) {
    auto* command = sub->add_subcommand(name, doc);
    command->add_option("path", *path, "A checkpoint (step-... folder) or one safetensors file.")->required();
    command->callback([&action, path, body] { action = [path, body] { return body(*path); }; });
  };
  add("ls", "Files and tensors.", list);
  add("inspect", "Step, numbers of tensors and values, state.", inspect);
  add("verify", "Recompute every checksum; names what is damaged.", verify);
  auto* command = sub->add_subcommand(
      "diff", "What differs between two checkpoints, or two safetensors files, by tensor.");
  auto paths = std::make_shared<std::pair<std::string, std::string>>();
  command->add_option("first", paths->first, "A checkpoint (step-... folder) or one safetensors file.")
      ->required();
  command->add_option("second", paths->second, "Another of the same sort.")->required();
  command->footer("Exit codes: 0 the same, 1 they differ, 3 one cannot be read.");
  command->callback([&action, paths] { action = [paths] { return diff(paths->first, paths->second); }; });
}

}  // namespace conclave::cli
