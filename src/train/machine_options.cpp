// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/machine_options.h"

#include <fmt/format.h>

#include "conclave/config/wrapped.h"

namespace conclave::train {

void declare_device(config::Fields& f, Device& device) {
  f("device", device, {{"auto", Device::kAuto}, {"cpu", Device::kCpu}, {"cuda", Device::kCuda}},
    "What computes; auto: the CPU.");
  f.check([&device](config::Check& check) {
    if (device == Device::kCuda) {
      check.error("device", "this version computes on the CPU only",
                  "write device: cpu, or leave it at auto");
    }
  });
}

void ParallelismOptions::fields(config::Fields& f) {
  config::or_auto(f("data_parallel_size", data_parallel_size,
                    "Ranks that share the batch; auto: what the other sizes leave of all ranks."))
      .min(1);
  f("expert_parallel_size", expert_parallel_size, "Ranks that share the experts of a layer.").min(1);
  f("tensor_parallel_size", tensor_parallel_size, "Ranks that share the matrices of a layer.").min(1);
  f("expert_tensor_parallel_size", expert_tensor_parallel_size, "Ranks that share the matrices of an expert.")
      .min(1);
  f("zero_stage", zero_stage, "What data-parallel ranks share out: 0 nothing, 1 optimizer states.")
      .min(0)
      .max(3);
  f("backend", backend,
    {{"auto", Backend::kAuto},
     {"local", Backend::kLocal},
     {"gloo", Backend::kGloo},
     {"nccl", Backend::kNccl}},
    "How ranks talk; auto and local: there is one.");
  f.check([this](config::Check& check) {
    constexpr const char* kOneRank = "this version runs one rank";
    const auto size = [&](const char* key, int64_t value) {
      if (value > 1) check.error(key, fmt::format("{} ranks are asked for; {}", value, kOneRank), "write 1");
    };
    size("data_parallel_size", data_parallel_size.value_or(1));
    size("expert_parallel_size", expert_parallel_size);
    size("tensor_parallel_size", tensor_parallel_size);
    size("expert_tensor_parallel_size", expert_tensor_parallel_size);
    if (zero_stage > 0) {
      check.error("zero_stage",
                  fmt::format("stage {} shares states out over ranks; {}", zero_stage, kOneRank), "write 0");
    }
    if (backend == Backend::kGloo || backend == Backend::kNccl) {
      check.error("backend", fmt::format("it connects several ranks; {}", kOneRank), "write auto");
    }
  });
}

}  // namespace conclave::train
