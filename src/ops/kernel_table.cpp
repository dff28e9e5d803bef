// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/kernel_table.h"

#include <array>

#include <c10/core/DeviceType.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "cpu_kernels.h"

namespace conclave::ops {

namespace {

std::array<KernelTable, c10::COMPILE_TIME_MAX_DEVICE_TYPES>& tables() {
  static auto all = [] {
    std::array<KernelTable, c10::COMPILE_TIME_MAX_DEVICE_TYPES> made;
    made[static_cast<size_t>(c10::DeviceType::CPU)] = cpu_kernels();
    return made;
  }();
  return all;
}

}  // namespace

std::vector<std::pair<std::string, bool>> entries_of(const KernelTable& t) {
  return {{"gather_rows", bool(t.gather_rows)},
          {"sum_rows", bool(t.sum_rows)},
          {"scale_rows", bool(t.scale_rows)},
          {"swiglu_forward", bool(t.swiglu_forward)},
          {"swiglu_backward", bool(t.swiglu_backward)},
          {"rms_norm_forward", bool(t.rms_norm_forward)},
          {"rms_norm_backward", bool(t.rms_norm_backward)},
          {"rope", bool(t.rope)},
          {"select_top_k", bool(t.select_top_k)},
          {"sort_pairs", bool(t.sort_pairs)},
          {"adamw", bool(t.adamw)}};
}

const KernelTable& kernels_of(const at::Tensor& t, const char* what) {
  const auto& table = tables()[static_cast<size_t>(t.device().type())];
  CONCLAVE_CHECK(table.gather_rows != nullptr,
                 fmt::format("{}: there are no kernels for {}: this program was built for CPUs", what,
                             t.device().str()));
  return table;
}

KernelTable install_kernels(c10::DeviceType device, KernelTable table) {
  return std::exchange(tables()[static_cast<size_t>(device)], std::move(table));
}

}  // namespace conclave::ops
