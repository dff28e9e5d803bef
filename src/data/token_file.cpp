// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/token_file.h"

#include <algorithm>
#include <cstddef>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "conclave/core/error.h"
#include "conclave/data/digest.h"
#include "token_format.h"

namespace conclave::data {

namespace {

// Larger files are checked by their header, sizes and offsets only, so that opening them stays quick.
constexpr uint64_t kVerifiedTokenBytes = uint64_t{1} << 30;

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& why) {
  throw Error(
      fmt::format("'{}' is not a whole token file: {}; remove it, it is made again", path.string(), why),
      Error::Kind::kData);
}

TokenHeader checked_header(const std::filesystem::path& path, std::string_view bytes,
                           const std::string& key) {
  TokenHeader header;
  if (bytes.size() < sizeof header) refuse(path, fmt::format("it has only {} bytes", bytes.size()));
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kTokenMagic) refuse(path, "its first bytes are not those of a token file");
  if (header.version != kTokenVersion) refuse(path, fmt::format("its version is {}", header.version));
  if (header.header_hash != hash64(bytes.substr(0, offsetof(TokenHeader, header_hash)))) {
    refuse(path, "the checksum of its header is wrong");
  }
  if (std::string_view(header.key.data(), header.key.size()) != key)
    refuse(path, "it was made from another source");
  const uint64_t limit = bytes.size();
  if (header.num_documents > limit / 8 || header.num_tokens > limit || header.names_bytes > limit ||
      TokenSections(header).end != limit) {
    refuse(path, fmt::format("it has {} bytes, which is not what its header says", limit));
  }
  if (limit <= kVerifiedTokenBytes && header.payload_hash != hash64(bytes.substr(sizeof header))) {
    refuse(path, "the checksum of its content is wrong");
  }
  return header;
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& path, const std::string& key) : key_(key), file_(path) {
  const std::string_view bytes(reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size());
  const TokenHeader header = checked_header(path, bytes, key);
  const TokenSections at(header);
  const auto view = [&]<class T>(uint64_t offset, uint64_t count, const T*) {
    return std::span<const T>(reinterpret_cast<const T*>(bytes.data() + offset), count);
  };
  num_documents_ = static_cast<int64_t>(header.num_documents);
  num_tokens_ = static_cast<int64_t>(header.num_tokens);
  const uint64_t count = header.num_documents;
  if (header.token_bytes == 2)
    narrow_ = reinterpret_cast<const uint16_t*>(bytes.data() + at.tokens);
  else
    wide_ = reinterpret_cast<const uint32_t*>(bytes.data() + at.tokens);
  offsets_ = view(at.offsets, count + 1, static_cast<const uint64_t*>(nullptr));
  content_ = view(at.content, count, static_cast<const uint64_t*>(nullptr));
  split_ = view(at.split, count, static_cast<const uint64_t*>(nullptr));
  domains_ = view(at.domains, count, static_cast<const int32_t*>(nullptr));
  domain_names_ = nlohmann::json::parse(bytes.substr(at.names)).get<std::vector<std::string>>();
  const auto num_domains = static_cast<int32_t>(domain_names_.size());
  if (offsets_.front() != 0 || offsets_.back() != header.num_tokens ||
      !std::is_sorted(offsets_.begin(), offsets_.end()) ||
      std::any_of(domains_.begin(), domains_.end(), [&](int32_t d) { return d < 0 || d >= num_domains; })) {
    refuse(path, "its document table is inconsistent");
  }
}

void TokenFile::copy(int64_t begin, std::span<int32_t> out) const {
  CONCLAVE_CHECK(
      begin >= 0 && begin + static_cast<int64_t>(out.size()) <= num_tokens_,
      fmt::format("tokens [{}, {}) of {}", begin, begin + static_cast<int64_t>(out.size()), num_tokens_));
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t at = static_cast<size_t>(begin) + i;
    out[i] = narrow_ ? narrow_[at] : static_cast<int32_t>(wide_[at]);
  }
}

}  // namespace conclave::data
