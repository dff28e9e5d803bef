// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/machine_options.h"

#include <vector>

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fmt/format.h>

#include "conclave/config/wrapped.h"
#include "conclave/core/error.h"
#include "conclave/ops/kernel_table.h"

namespace conclave::train {

void declare_device(config::Fields& f, Device& device) {
  f("device", device, {{"auto", Device::kAuto}, {"cpu", Device::kCpu}, {"cuda", Device::kCuda}},
    "What computes; auto: a GPU where there is one, else the CPU.");
}

c10::Device open_device(Device device, int local_rank) {
  CONCLAVE_CHECK(device != Device::kAuto, "device: auto was not resolved");
  if (device != Device::kCuda) return c10::DeviceType::CPU;
  constexpr auto kCuda = c10::DeviceType::CUDA;
  if (const auto absence = ops::absence_of(kCuda); !absence.empty())
    throw ConfigError(fmt::format("device: cuda: {}; write device: cpu, or leave it at auto", absence));
  const auto* gpus = c10::impl::getDeviceGuardImpl(kCuda);
  const int count = gpus->deviceCount(), index = count == 1 ? 0 : local_rank;  // one each, or one visible
  if (index >= count) {
    throw ConfigError(
        fmt::format("device: cuda: rank {} of this node has no GPU, {} are visible; start as many ranks as "
                    "there are GPUs",
                    local_rank, count));
  }
  const c10::Device opened(kCuda, static_cast<c10::DeviceIndex>(index));
  gpus->setDevice(opened);
  return opened;
}

void ParallelismOptions::fields(config::Fields& f) {
  config::or_auto(f("data_parallel_size", data_parallel_size,
                    "Ranks that share the batch; auto: what the other sizes leave of all ranks."))
      .min(1);
  f("expert_parallel_size", expert_parallel_size, "Ranks that share the experts of a layer.").min(1);
  f("tensor_parallel_size", tensor_parallel_size, "Ranks that share the matrices of a layer.").min(1);
  f("expert_tensor_parallel_size", expert_tensor_parallel_size, "Ranks that share the matrices of an expert.")
      .min(1);
  f("zero_stage", zero_stage,
    "What the ranks that hold a parameter share out: 0 nothing, 1 its update and optimizer states.")
      .min(0)
      .max(3);
  f("timeout_seconds", timeout_seconds, "How long a rank waits for the others, to meet and in an operation.")
      .positive();
  f("backend", backend,
    {{"auto", Backend::kAuto},
     {"local", Backend::kLocal},
     {"gloo", Backend::kGloo},
     {"nccl", Backend::kNccl}},
    "How ranks talk: local is one rank, nccl processes with a GPU each, gloo processes on CPUs, or on GPUs "
    "through the memory of the host; auto: what their number and the device ask for.");
  f.check([this](config::Check& check) {
    const auto whole = [&](const char* key, int64_t value) {
      if (value > 1)
        check.error(key, fmt::format("{} ranks are to split a matrix, and this version splits none", value),
                    "write 1");
    };
    whole("tensor_parallel_size", tensor_parallel_size);
    whole("expert_tensor_parallel_size", expert_tensor_parallel_size);
    if (zero_stage > 1) {
      check.error(
          "zero_stage",
          fmt::format("stage {} shares out gradients or parameters, and this version keeps them whole",
                      zero_stage),
          "write 1 or 0");
    }
    if (data_parallel_size && *data_parallel_size % expert_parallel_size != 0) {
      check.error("expert_parallel_size",
                  fmt::format("{} data-parallel ranks cannot be cut into groups of {} that share the experts",
                              *data_parallel_size, expert_parallel_size),
                  fmt::format("use {}", divisors_text(*data_parallel_size)));
    }
  });
}

std::string divisors_text(int64_t number) {
  std::vector<int64_t> divisors;
  for (int64_t d = 1; d <= number; ++d) {
    if (number % d == 0) divisors.push_back(d);
  }
  return fmt::format("{}", fmt::join(divisors, ", "));
}

}  // namespace conclave::train
