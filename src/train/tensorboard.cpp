// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/file_writer.h"

namespace conclave::train {

namespace {

constexpr std::string_view kEventPrefix = "events.out.tfevents.";

constexpr std::array<uint32_t, 256> make_crc32c_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}
constexpr auto kCrc32cTable = make_crc32c_table();

template <class T>
void append_raw(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

// The TFRecord format stores checksums rotated and shifted, so that a checksum over checksums stays sound.
uint32_t masked_crc32c(std::string_view text) {
  return std::rotr(crc32c(bytes_of(text)), 15) + 0xA282EAD8u;
}

// A protocol buffer message under construction. Field numbers are those of TensorFlow's event.proto and
// summary.proto.
class ProtoMessage {
 public:
  ProtoMessage& integer(int field, uint64_t value) {
    key(field, 0);
    varint(value);
    return *this;
  }
  ProtoMessage& real64(int field, double value) {
    key(field, 1);
    append_raw(text_, value);
    return *this;
  }
  ProtoMessage& real32(int field, float value) {
    key(field, 5);
    append_raw(text_, value);
    return *this;
  }
  ProtoMessage& bytes(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    text_ += value;
    return *this;
  }
  ProtoMessage& message(int field, const ProtoMessage& value) { return bytes(field, value.text_); }
  const std::string& text() const { return text_; }

 private:
  void key(int field, int wire) { varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire)); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
  }
  std::string text_;
};

// Event {wall_time = 1, step = 2, ...}
ProtoMessage event_at(int64_t step, double wall_time) {
  return ProtoMessage().real64(1, wall_time).integer(2, static_cast<uint64_t>(step));
}

// The largest SECONDS among the event files of the folder, -1 when there are none.
int64_t newest_event_file(const std::filesystem::path& folder) {
  int64_t newest = -1;
  for (const auto& item : std::filesystem::directory_iterator(folder)) {
    const std::string name = item.path().filename();
    if (!name.starts_with(kEventPrefix)) continue;
    int64_t seconds = 0;
    std::from_chars(name.data() + kEventPrefix.size(), name.data() + name.size(), seconds);
    newest = std::max(newest, seconds);
  }
  return newest;
}

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes) {
  uint32_t crc = ~0u;
  for (const std::byte b : bytes) crc = (crc >> 8) ^ kCrc32cTable[(crc ^ static_cast<uint32_t>(b)) & 0xFF];
  return ~crc;
}

std::string tfrecord(std::string_view payload) {
  std::string record;
  append_raw(record, static_cast<uint64_t>(payload.size()));
  append_raw(record, masked_crc32c(record));
  record += payload;
  append_raw(record, masked_crc32c(payload));
  return record;
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder, double wall_time,
                                     int64_t first_step) {
  int64_t older = -1;
  try {
    std::filesystem::create_directories(folder);
    older = newest_event_file(folder);
  } catch (const std::filesystem::filesystem_error& error) {
    throw Error(fmt::format("cannot use the folder '{}': {}", folder.string(), error.code().message()));
  }
  // TensorBoard reads a folder's files in the order of their names.
  const auto seconds = std::max(static_cast<int64_t>(wall_time), older + 1);
  path_ = folder / fmt::format("{}{:010}.conclave", kEventPrefix, seconds);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) {
    const std::string reason = std::strerror(errno);
    throw Error(fmt::format("cannot create '{}': {}", path_.string(), reason));
  }
  write_event(ProtoMessage().real64(1, wall_time).bytes(3, "brain.Event:2").text());
  const auto session_start = ProtoMessage().integer(1, 1);  // SessionLog {status = 1: START}
  write_event(event_at(first_step, wall_time).message(7, session_start).text());
}

TensorboardWriter::~TensorboardWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void TensorboardWriter::scalars(int64_t step, double wall_time, std::span<const Metric> metrics) {
  ProtoMessage summary;
  for (const auto& metric : metrics) {
    summary.message(1, ProtoMessage().bytes(1, metric.name).real32(2, static_cast<float>(metric.value)));
  }
  write_event(event_at(step, wall_time).message(5, summary).text());
}

void TensorboardWriter::text(int64_t step, double wall_time, const std::string& name,
                             const std::string& text) {
  constexpr int kStringTensor = 7, kTensorClass = 2;
  const auto shape = ProtoMessage().message(2, ProtoMessage().integer(1, 1));  // one dimension of size 1
  const auto tensor = ProtoMessage().integer(1, kStringTensor).message(2, shape).bytes(8, text);
  const auto metadata = ProtoMessage().message(1, ProtoMessage().bytes(1, "text")).integer(4, kTensorClass);
  const auto value = ProtoMessage().bytes(1, name).message(8, tensor).message(9, metadata);
  write_event(event_at(step, wall_time).message(5, ProtoMessage().message(1, value)).text());
}

void TensorboardWriter::write_event(const std::string& event) {
  const std::string record = tfrecord(event);
  ssize_t count = -1;
  do {
    count = ::write(descriptor_, record.data(), record.size());
  } while (count < 0 && errno == EINTR);
  if (count == static_cast<ssize_t>(record.size())) return;
  const std::string reason = std::strerror(count < 0 ? errno : ENOSPC);
  throw Error(fmt::format("cannot write '{}': {}", path_.string(), reason));
}

}  // namespace conclave::train
