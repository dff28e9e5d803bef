// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/kernel_table.h"

#include <array>

#include <c10/core/DeviceType.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "cpu_kernels.h"

namespace conclave::ops {

namespace {

struct Place {
  KernelTable kernels = {};
  std::function<std::string()> load = {};  // until it was called
  std::string absence = "this program was built for CPUs";
};

// Written while a program starts, and by load().
std::array<Place, c10::COMPILE_TIME_MAX_DEVICE_TYPES>& places() {
  static auto all = [] {
    std::array<Place, c10::COMPILE_TIME_MAX_DEVICE_TYPES> made;
    made[static_cast<size_t>(c10::DeviceType::CPU)].kernels = cpu_kernels();
    return made;
  }();
  return all;
}

Place& place_of(c10::DeviceType device) {
  return places()[static_cast<size_t>(device)];
}

bool is_there(const Place& place) {
  return place.kernels.gather_rows != nullptr;
}

}  // namespace

const KernelTable& kernels_of(const at::Tensor& t, const char* what) {
  return kernels_of(t.device().type(), what);
}

const KernelTable& kernels_of(c10::DeviceType device, const char* what) {
  const auto& place = place_of(device);
  if (is_there(place)) return place.kernels;
  const auto absence = absence_of(device);
  CONCLAVE_CHECK(absence.empty(), fmt::format("{}: there are no kernels for {}: {}", what,
                                              c10::DeviceTypeName(device, /*lower_case=*/true), absence));
  return place.kernels;
}

void offer_device(c10::DeviceType device, std::function<std::string()> load) {
  place_of(device).load = std::move(load);
}

std::string absence_of(c10::DeviceType device) {
  auto& place = place_of(device);
  if (const auto load = std::exchange(place.load, {})) place.absence = load();
  return is_there(place) ? "" : place.absence;
}

KernelTable install_kernels(c10::DeviceType device, KernelTable table) {
  return std::exchange(place_of(device).kernels, std::move(table));
}

}  // namespace conclave::ops
