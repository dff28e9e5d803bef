// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <set>

#include <fmt/format.h>
#include <zlib.h>

#include "conclave/core/error.h"
#include "conclave/data/extract.h"

namespace conclave::data {

namespace {

[[noreturn]] void refuse_module(const std::string& why) {
  throw Error(fmt::format("the SWORD module is damaged or of another kind: {}", why), Error::Kind::kData);
}

// Little-endian, at any alignment.
uint32_t read_u32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

uint32_t read_u16(std::string_view bytes, size_t at) {
  return static_cast<unsigned char>(bytes[at]) |
         static_cast<uint32_t>(static_cast<unsigned char>(bytes[at + 1])) << 8;
}

std::vector<std::string> unpack_blocks(std::string_view index, std::string_view data) {
  std::vector<std::string> blocks;
  for (size_t at = 0; at + 12 <= index.size(); at += 12) {
    const size_t offset = read_u32(index, at), packed = read_u32(index, at + 4);
    std::string block(read_u32(index, at + 8), '\0');
    if (offset > data.size() || packed > data.size() - offset) refuse_module("a block lies outside the data");
    uLongf size = block.size();
    const int code = ::uncompress(reinterpret_cast<Bytef*>(block.data()), &size,
                                  reinterpret_cast<const Bytef*>(data.data() + offset), packed);
    if (code != Z_OK || size != block.size())
      refuse_module(fmt::format("block {} cannot be unpacked", at / 12));
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace

std::string sword_text(std::string_view blocks_index, std::string_view verses, std::string_view data) {
  const auto blocks = unpack_blocks(blocks_index, data);
  struct Slot {
    uint32_t block = 0, offset = 0, size = 0;
  };
  std::vector<Slot> slots;
  std::vector<std::set<uint32_t>> used(blocks.size());
  for (size_t at = 0; at + 10 <= verses.size(); at += 10) {
    const Slot slot = {read_u32(verses, at), read_u32(verses, at + 4), read_u16(verses, at + 8)};
    if (slot.size == 0) continue;
    if (slot.block >= blocks.size())
      refuse_module(fmt::format("verse {} is of block {}", at / 10, slot.block));
    if (used[slot.block].insert(slot.offset).second) slots.push_back(slot);
  }
  std::string text;
  for (const Slot& slot : slots) {
    const std::string& block = blocks[slot.block];
    const auto next = used[slot.block].upper_bound(slot.offset);
    const size_t end = next == used[slot.block].end() ? block.size() : *next;
    size_t size = slot.size;
    if (slot.offset + size + 65536 <= end) size += 65536;
    if (slot.offset + size > block.size()) refuse_module("a verse ends outside its block");
    text.append(block, slot.offset, size);
  }
  return text;
}

}  // namespace conclave::data
