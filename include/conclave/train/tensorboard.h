// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "conclave/train/metrics.h"

namespace conclave::train {

// CRC-32C (Castagnoli) of the bytes, as RFC 3720 defines it.
uint32_t crc32c(std::span<const std::byte> bytes);

// One record of a TensorBoard event file: length, masked checksum of the length, payload, masked checksum of
// it.
std::string tfrecord(std::string_view payload);

// Writes one new event file `events.out.tfevents.SECONDS.conclave` into `folder`, which is created; it sorts
// behind the files that are there. Every event is one write. Each file begins with a session start at
// `first_step`: from the second on, TensorBoard takes it for a restart and drops what older files say about
// that step and later ones, so that replaced steps show once.
class TensorboardWriter {
 public:
  TensorboardWriter(const std::filesystem::path& folder, double wall_time, int64_t first_step);
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;

  // Values are stored in single precision, as the format wants.
  void scalars(int64_t step, double wall_time, std::span<const Metric> metrics);
  void text(int64_t step, double wall_time, const std::string& name, const std::string& text);
  const std::filesystem::path& path() const { return path_; }

 private:
  void write_event(const std::string& event);

  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace conclave::train
