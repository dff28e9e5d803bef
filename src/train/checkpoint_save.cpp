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

#include "conclave/comm/agreement.h"
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

// What every rank wrote, in the order of the ranks.
std::vector<CheckpointFile> gather_files(comm::Communicator& ranks, const std::vector<CheckpointFile>& mine) {
  if (ranks.size() == 1) return mine;
  std::vector<CheckpointFile> all;
  const auto texts = comm::all_gather_texts(ranks, render_manifest({.files = mine}));
  for (size_t r = 0; r < texts.size(); ++r) {
    const auto part = parse_manifest(texts[r], fmt::format("the list of files of rank {}", r));
    all.insert(all.end(), part.files.begin(), part.files.end());
  }
  return all;
}

}  // namespace

std::vector<CheckpointFile> CheckpointStore::write_tensors(const std::filesystem::path& temporary,
                                                           const CheckpointContents& contents) const {
  std::vector<CheckpointFile> written;
  for (const auto& file : contents.files) {
    const auto out = open_file_(temporary / file.name);
    HashingWriter hashing(*out);
    const uint64_t size = write_safetensors(hashing, file.name, file.tensors, file.metadata);
    hashing.finish();
    CheckpointFile entry{.name = file.name, .size = size, .checksum = hashing.digest(), .tensors = {}};
    for (const auto& tensor : file.tensors) entry.tensors.emplace(tensor.name, xxh3_64(tensor.bytes));
    written.push_back(std::move(entry));
  }
  return written;
}

void CheckpointStore::write_manifest(const std::filesystem::path& temporary,
                                     const CheckpointContents& contents,
                                     std::vector<CheckpointFile> files) const {
  const auto write_text = [&](const char* name, const std::string& text) {
    const auto out = open_file_(temporary / name);
    out->write(bytes_of(text));
    out->finish();
  };
  write_text(kStateFile, contents.state);
  files.push_back({.name = kStateFile,
                   .size = contents.state.size(),
                   .checksum = xxh3_64(bytes_of(contents.state)),
                   .tensors = {}});
  write_text(kManifestFile, render_manifest({.step = contents.step,
                                             .tokens = contents.tokens,
                                             .config_hash = contents.config_hash,
                                             .attributes = contents.attributes,
                                             .files = std::move(files)}));
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

void CheckpointStore::save(const CheckpointContents& contents) const {
  const auto alone = comm::make_single_communicator();
  save(contents, *alone);
}

void CheckpointStore::save(const CheckpointContents& contents, comm::Communicator& ranks) const {
  const bool first = ranks.rank() == 0;
  const std::filesystem::path temporary = step_folder(contents.step).string() + ".tmp";
  std::string free = "an unknown number of bytes is";
  const auto together = [&](const std::function<void()>& part) { comm::do_together(ranks, part); };
  together([&] { check_checkpoint_contents(contents); });
  const uint64_t needed = checkpoint_bytes(contents);
  std::vector<CheckpointFile> files;
  const auto clean_up = [&] {
    std::error_code ignored;
    if (first) std::filesystem::remove_all(temporary, ignored);
  };
  try {
    together([&] {
      if (!first) return;
      std::filesystem::create_directories(folder_);
      remove_unfinished();
      std::filesystem::create_directory(temporary);
    });
    together([&] {
      free = free_bytes(folder_);
      files = write_tensors(temporary, contents);
    });
    files = gather_files(ranks, files);
    together([&] {
      if (!first) return;
      write_manifest(temporary, contents, files);
      sync_path(temporary);
      publish(temporary, contents.step);
    });
  } catch (const std::bad_alloc&) {
    clean_up();
    throw;
  } catch (const std::exception& error) {
    clean_up();
    const auto* told = dynamic_cast<const Error*>(&error);
    const bool elsewhere = told && told->kind() == Error::Kind::kCommunication;
    throw Error(
        fmt::format("cannot save the checkpoint of step {} in '{}': {}. It needs {} bytes, {} free. "
                    "Older checkpoints are untouched; free space, lower checkpoint.keep_latest_k or choose "
                    "another run.output_dir.",
                    contents.step, folder_.string(), error.what(), needed, free),
        elsewhere ? Error::Kind::kCommunication : Error::Kind::kFailed);
  }
  if (!first) return;
  sync_path(folder_);
  link_latest(contents.step);
  retain(contents.step);
}

}  // namespace conclave::train
