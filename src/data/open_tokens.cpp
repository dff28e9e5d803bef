// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <cstddef>
#include <optional>

#include <fmt/format.h>
#include <xxhash.h>
#include <nlohmann/json.hpp>

#include "conclave/core/error.h"
#include "conclave/data/digest.h"
#include "conclave/data/token_file.h"
#include "file_lock.h"
#include "output_file.h"
#include "token_format.h"

namespace conclave::data {

namespace fs = std::filesystem;

namespace {

// Files above this are told apart by size, times and inode; reading them twice would take minutes.
constexpr int64_t kHashedSourceBytes = int64_t{1} << 30;
constexpr size_t kMaxDomains = 4096;

std::string content_identity(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return "missing";
  if (info.st_size <= kHashedSourceBytes) return hash128_of_file(path);
  return fmt::format("{}:{}.{:09}:{}.{:09}:{}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec,
                     info.st_ctim.tv_sec, info.st_ctim.tv_nsec, info.st_ino);
}

std::string token_key(const TokenSource& source, const Tokenizer& tokenizer) {
  nlohmann::json parts = {{"format", kTokenVersion},
                          {"tokenizer", tokenizer.identity()},
                          {"name", source.name},
                          {"corpus", source.is_corpus},
                          {"text_field", source.options.text_field},
                          {"label_field", source.options.label_field.value_or("")},
                          {"separator", source.options.document_separator.value_or("")},
                          {"files", nlohmann::json::array()}};
  for (const auto& file : source.files) {
    parts["files"].push_back(nlohmann::json::array({file.name, content_identity(file.path)}));
  }
  return hash128(parts.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

// Collects the tables while the tokens go straight to the file.
class TokenWriter {
 public:
  TokenWriter(const fs::path& path, const Tokenizer& tokenizer, std::string source_name)
      : file_(path),
        tokenizer_(tokenizer),
        source_name_(std::move(source_name)),
        hash_(::XXH3_createState(), ::XXH3_freeState) {
    CONCLAVE_CHECK(hash_ && ::XXH3_64bits_reset(hash_.get()) == XXH_OK, "no memory for a checksum");
    header_.token_bytes = tokenizer.vocab_size() <= 65536 ? 2 : 4;
    file_.write(&header_, sizeof header_);
  }

  void add(const std::string& text, const std::string& domain, uint64_t content, uint64_t split) {
    ids_.assign(1, tokenizer_.document_mark());
    tokenizer_.encode(text, ids_);
    if (header_.token_bytes == 2) {
      narrow_.assign(ids_.begin(), ids_.end());
      put(narrow_.data(), narrow_.size() * 2);
    } else {
      put(ids_.data(), ids_.size() * 4);
    }
    offsets_.push_back(offsets_.back() + ids_.size());
    content_.push_back(content);
    split_.push_back(split);
    domains_.push_back(domain_id(domain));
  }

  int64_t num_documents() const { return static_cast<int64_t>(domains_.size()); }
  uint64_t num_tokens() const { return offsets_.back(); }

  void commit(const std::string& key) {
    pad(num_tokens() * header_.token_bytes);
    put(offsets_.data(), offsets_.size() * 8);
    put(content_.data(), content_.size() * 8);
    put(split_.data(), split_.size() * 8);
    put(domains_.data(), domains_.size() * 4);
    pad(domains_.size() * 4);
    const std::string names = nlohmann::json(names_).dump();
    put(names.data(), names.size());
    header_.num_documents = domains_.size();
    header_.num_tokens = num_tokens();
    header_.names_bytes = names.size();
    header_.payload_hash = ::XXH3_64bits_digest(hash_.get());
    std::copy_n(key.begin(), header_.key.size(), header_.key.begin());
    header_.header_hash = ::XXH3_64bits(&header_, offsetof(TokenHeader, header_hash));
    file_.overwrite(0, &header_, sizeof header_);
    file_.commit();
  }

 private:
  void put(const void* data, size_t size) {
    ::XXH3_64bits_update(hash_.get(), data, size);
    file_.write(data, size);
  }
  void pad(uint64_t written) { put("\0\0\0\0\0\0\0", padded(written) - written); }

  int32_t domain_id(const std::string& name) {
    for (size_t i = names_.size(); i-- > 0;) {
      if (names_[i] == name) return static_cast<int32_t>(i);
    }
    if (names_.size() == kMaxDomains) {
      throw Error(
          fmt::format("{}: more than {} different labels ('{}' is one too many); label_field should name a "
                      "field with few values",
                      source_name_, kMaxDomains, name),
          Error::Kind::kData);
    }
    names_.push_back(name);
    return static_cast<int32_t>(names_.size() - 1);
  }

  TokenHeader header_;
  OutputFile file_;
  const Tokenizer& tokenizer_;
  std::string source_name_;
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash_;
  std::vector<int32_t> ids_;
  std::vector<uint16_t> narrow_;
  std::vector<uint64_t> offsets_ = {0}, content_, split_;
  std::vector<int32_t> domains_;
  std::vector<std::string> names_;
};

void build_tokens(const TokenSource& source, const Tokenizer& tokenizer, const fs::path& path,
                  const std::string& key, const Log& log) {
  TokenWriter writer(path, tokenizer, source.name);
  int64_t num_empty = 0;
  for (const auto& file : source.files) {
    const std::string stem = file.name.substr(0, file.name.find('.'));
    read_documents(file.path, source.options, [&](Document&& document) {
      if (document.text.empty()) {
        ++num_empty;
        return;
      }
      const uint64_t content = hash64(document.text);
      const uint64_t split = source.is_corpus ? crc32_of(stem + "/" + document.id) : content;
      const std::string& own = source.is_corpus ? stem : document.label;
      writer.add(document.text, own.empty() ? source.name : own, content, split);
    });
  }
  if (writer.num_documents() == 0) {
    throw Error(fmt::format("the source '{}' ({} file{}, first '{}') holds no text: {} documents, all empty",
                            source.name, source.files.size(), source.files.size() == 1 ? "" : "s",
                            source.files.front().path.string(), num_empty),
                Error::Kind::kData);
  }
  if (num_empty > 0)
    log.warn(fmt::format("{}: {} documents without text were left out", source.name, num_empty));
  if (token_key(source, tokenizer) != key) {
    throw Error(
        fmt::format("the files of '{}' changed while they were read; start again when they are complete",
                    source.name),
        Error::Kind::kData);
  }
  writer.commit(key);
  log.info(
      fmt::format("{}: {} documents, {} tokens", source.name, writer.num_documents(), writer.num_tokens()));
}

// What a killed builder of this key left; the caller holds the lock.
void remove_leftovers(const fs::path& folder, const std::string& key) {
  for (const auto& item : fs::directory_iterator(folder)) {
    const std::string name = item.path().filename().string();
    std::error_code ignored;
    if (name.starts_with(key) && name.ends_with(".tmp")) fs::remove(item.path(), ignored);
  }
}

std::optional<TokenFile> open_whole(const fs::path& path, const std::string& key, const Log& log) {
  if (!fs::exists(path)) return std::nullopt;
  try {
    return TokenFile(path, key);
  } catch (const Error& error) {
    log.warn(fmt::format("{} (making it again now)", error.what()));
    return std::nullopt;
  }
}

}  // namespace

TokenFile open_tokens(const TokenSource& source, const Tokenizer& tokenizer, const fs::path& folder,
                      const Log& log) {
  CONCLAVE_CHECK(!source.files.empty(), "a source without files");
  const std::string key = token_key(source, tokenizer);
  const fs::path path = folder / (key + ".tokens");
  if (fs::exists(path)) {
    if (auto tokens = open_whole(path, key, log)) return *std::move(tokens);
  }
  const FileLock lock(folder / (key + ".lock"), fmt::format("the tokens of '{}'", source.name), log);
  if (fs::exists(path)) {  // another builder was first
    if (auto tokens = open_whole(path, key, Log())) return *std::move(tokens);
  }
  remove_leftovers(folder, key);
  build_tokens(source, tokenizer, path, key, log);
  return TokenFile(path, key);
}

}  // namespace conclave::data
