// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

// Layout of a token file, shared by its writer and its reader: header, then sections that each start at a
// multiple of 8 bytes, in this order: tokens, offsets (documents + 1), content hashes, split keys, domains
// (i32), domain names (a JSON list).
namespace conclave::data {

constexpr std::array<char, 8> kTokenMagic = {'C', 'N', 'C', 'L', 'T', 'O', 'K', '\n'};
constexpr uint32_t kTokenVersion = 1;

struct TokenHeader {
  std::array<char, 8> magic = kTokenMagic;
  uint32_t version = kTokenVersion;
  uint32_t token_bytes = 2;  // 2 or 4
  uint64_t num_documents = 0;
  uint64_t num_tokens = 0;
  uint64_t names_bytes = 0;
  uint64_t payload_hash = 0;  // XXH3 of all that follows the header
  std::array<char, 32> key = {};
  uint64_t header_hash = 0;  // XXH3 of the fields above
};
static_assert(sizeof(TokenHeader) == 88 && sizeof(TokenHeader) % 8 == 0);

constexpr uint64_t padded(uint64_t bytes) {
  return (bytes + 7) / 8 * 8;
}

struct TokenSections {
  explicit TokenSections(const TokenHeader& h)
      : tokens(sizeof(TokenHeader)),
        offsets(tokens + padded(h.num_tokens * h.token_bytes)),
        content(offsets + 8 * (h.num_documents + 1)),
        split(content + 8 * h.num_documents),
        domains(split + 8 * h.num_documents),
        names(domains + padded(4 * h.num_documents)),
        end(names + h.names_bytes) {}
  uint64_t tokens, offsets, content, split, domains, names, end;
};

}  // namespace conclave::data
