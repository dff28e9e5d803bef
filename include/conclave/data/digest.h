// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace conclave::data {

// SHA-256 (FIPS 180-4), fed piece by piece; hex() may be asked once.
class Sha256 {
 public:
  void update(std::string_view bytes);
  std::string hex();

 private:
  void block(const unsigned char* bytes);
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> buffer_ = {};
  uint64_t size_ = 0;
};

std::string sha256_of_file(const std::filesystem::path& path);

// XXH3 in hexadecimal digits, 128 bits.
std::string hash128(std::string_view bytes);
std::string hash128_of_file(const std::filesystem::path& path);

// XXH3, 64 bits.
uint64_t hash64(std::string_view bytes);

// CRC-32 of IEEE 802.3, as in zip and gzip.
uint32_t crc32_of(std::string_view bytes);

}  // namespace conclave::data
