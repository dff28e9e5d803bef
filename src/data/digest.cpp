// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/digest.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include <fmt/format.h>
#include <xxhash.h>
#include <zlib.h>

#include "conclave/core/error.h"

namespace conclave::data {

namespace {

// Hands the file to `consume` piece by piece. Not mapped: a file that shrinks meanwhile must not end the
// process.
template <class Consume>
void for_each_piece(const std::filesystem::path& path, const Consume& consume) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"), std::fclose);
  std::string piece(1 << 18, '\0');
  size_t count = 0;
  errno = 0;
  while (file && (count = std::fread(piece.data(), 1, piece.size(), file.get())) > 0) {
    consume(std::string_view(piece.data(), count));
  }
  if (!file || std::ferror(file.get()) != 0) {
    throw Error(fmt::format("cannot read '{}': {}", path.string(), std::strerror(errno)), Error::Kind::kData);
  }
}

std::string hash_text(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

std::string sha256_of_file(const std::filesystem::path& path) {
  Sha256 sum;
  for_each_piece(path, [&](std::string_view piece) { sum.update(piece); });
  return sum.hex();
}

std::string hash128(std::string_view bytes) {
  return hash_text(::XXH3_128bits(bytes.data(), bytes.size()));
}

std::string hash128_of_file(const std::filesystem::path& path) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(::XXH3_createState(),
                                                                              ::XXH3_freeState);
  CONCLAVE_CHECK(state && ::XXH3_128bits_reset(state.get()) == XXH_OK, "no memory for a checksum");
  for_each_piece(
      path, [&](std::string_view piece) { ::XXH3_128bits_update(state.get(), piece.data(), piece.size()); });
  return hash_text(::XXH3_128bits_digest(state.get()));
}

uint64_t hash64(std::string_view bytes) {
  return ::XXH3_64bits(bytes.data(), bytes.size());
}

uint32_t crc32_of(std::string_view bytes) {
  return static_cast<uint32_t>(
      ::crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

}  // namespace conclave::data
