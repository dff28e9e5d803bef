// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <set>

#include <fmt/format.h>
#include <xxhash.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/checkpoint_store.h"
#include "conclave/train/json_reader.h"

namespace conclave::train {

namespace {

// Hashes what passes through.
class HashingWriter : public FileWriter {
 public:
  explicit HashingWriter(FileWriter& below) : below_(below), state_(XXH3_createState(), XXH3_freeState) {
    if (!state_) throw std::bad_alloc();
    XXH3_64bits_reset(state_.get());
  }
  void write(std::span<const std::byte> bytes) override {
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
    below_.write(bytes);
  }
  void finish() override { below_.finish(); }
  uint64_t digest() const { return XXH3_64bits_digest(state_.get()); }

 private:
  FileWriter& below_;
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

void check_checkpoint_contents(const CheckpointContents& contents) {
  const auto refuse = [&](const std::string& problem) {
    throw Error(fmt::format("cannot save a checkpoint of step {}: {}", contents.step, problem));
  };
  if (contents.step < 0 || contents.tokens < 0) refuse("step and tokens must be >= 0");
  std::set<std::string> names{kManifestFile, kStateFile};
  for (const auto& file : contents.files) {
    const bool plain = !file.name.empty() && file.name.size() <= 200 && file.name.front() != '.' &&
                       file.name.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                           "0123456789._-") == std::string::npos;
    if (!plain) refuse(fmt::format("'{}' is not a plain file name", file.name));
    if (!names.insert(file.name).second) refuse(fmt::format("the file name '{}' is taken", file.name));
  }
  parse_json(contents.state, fmt::format("state of the checkpoint of step {}", contents.step));
}

// Without the manifest, which is small beside them.
uint64_t checkpoint_bytes(const CheckpointContents& contents) {
  uint64_t total = contents.state.size();
  for (const auto& file : contents.files) total += safetensors_size(file.name, file.tensors, file.metadata);
  return total;
}

std::string free_bytes(const std::filesystem::path& folder) {
  std::error_code error;
  const auto space = std::filesystem::space(folder, error);
  return error ? "an unknown number of bytes is" : fmt::format("{} bytes are", space.available);
}

[[noreturn]] void fail_on_rename(const std::filesystem::path& path) {
  const std::string reason = std::strerror(errno);
  throw Error(fmt::format("cannot rename '{}': {}", path.string(), reason));
}

void rename_folder(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_on_rename(from);
}

// Puts `fresh` where a checkpoint stands already; the old one ends up under `fresh`. One atomic exchange
// where the file system can do it; else two renames, between which a crash leaves neither under its name.
void exchange_folders(const std::filesystem::path& fresh, const std::filesystem::path& target) {
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail_on_rename(fresh);
  const std::filesystem::path aside = target.string() + ".replaced.tmp";
  rename_folder(target, aside);
  if (::rename(fresh.c_str(), target.c_str()) != 0) {
    const int reason = errno;
    ::rename(aside.c_str(), target.c_str());
    errno = reason;
    fail_on_rename(fresh);
  }
  rename_folder(aside, fresh);
}

}  // namespace

void CheckpointStore::write_files(const std::filesystem::path& temporary,
                                  const CheckpointContents& contents) const {
  CheckpointManifest manifest{.step = contents.step,
                              .tokens = contents.tokens,
                              .config_hash = contents.config_hash,
                              .attributes = contents.attributes,
                              .files = {}};
  for (const auto& file : contents.files) {
    const auto out = open_file_(temporary / file.name);
    HashingWriter hashing(*out);
    const uint64_t size = write_safetensors(hashing, file.name, file.tensors, file.metadata);
    hashing.finish();
    CheckpointFile entry{.name = file.name, .size = size, .checksum = hashing.digest(), .tensors = {}};
    for (const auto& tensor : file.tensors) entry.tensors.emplace(tensor.name, xxh3_64(tensor.bytes));
    manifest.files.push_back(std::move(entry));
  }
  const auto write_text = [&](const char* name, const std::string& text) {
    const auto out = open_file_(temporary / name);
    out->write(bytes_of(text));
    out->finish();
  };
  write_text(kStateFile, contents.state);
  manifest.files.push_back({.name = kStateFile,
                            .size = contents.state.size(),
                            .checksum = xxh3_64(bytes_of(contents.state)),
                            .tensors = {}});
  write_text(kManifestFile, render_manifest(manifest));
}

void CheckpointStore::publish(const std::filesystem::path& temporary, int64_t step) const {
  const auto target = step_folder(step);
  if (!std::filesystem::exists(std::filesystem::symlink_status(target))) {
    rename_folder(temporary, target);
    return;
  }
  try {
    open(step);
  } catch (const Error& error) {
    throw Error(fmt::format("'{}' is in the way and no checkpoint of this run ({}); move it away",
                            target.string(), error.what()));
  }
  exchange_folders(temporary, target);
  std::error_code error;
  std::filesystem::remove_all(temporary, error);
  if (error) log_.warn(fmt::format("cannot remove '{}': {}", temporary.string(), error.message()));
}

void CheckpointStore::save(const CheckpointContents& contents) {
  check_checkpoint_contents(contents);
  const uint64_t needed = checkpoint_bytes(contents);
  const std::filesystem::path temporary = step_folder(contents.step).string() + ".tmp";
  std::string free = "an unknown number of bytes is";
  try {
    std::filesystem::create_directories(folder_);
    remove_unfinished();
    free = free_bytes(folder_);
    std::filesystem::create_directory(temporary);
    write_files(temporary, contents);
    sync_path(temporary);
    publish(temporary, contents.step);
  } catch (const std::bad_alloc&) {
    std::error_code ignored;
    std::filesystem::remove_all(temporary, ignored);
    throw;
  } catch (const std::exception& error) {
    std::error_code ignored;
    std::filesystem::remove_all(temporary, ignored);
    throw Error(
        fmt::format("cannot save the checkpoint of step {} in '{}': {}. It needs {} bytes, {} free. "
                    "Older checkpoints are untouched; free space, lower checkpoint.keep_latest_k or choose "
                    "another run.output_dir.",
                    contents.step, folder_.string(), error.what(), needed, free));
  }
  sync_path(folder_);
  link_latest(contents.step);
  retain(contents.step);
}

}  // namespace conclave::train
