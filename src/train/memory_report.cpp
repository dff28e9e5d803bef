// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/memory_report.h"

#include <vector>

#include <c10/core/CachingDeviceAllocator.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace conclave::train {

namespace {

std::string mebibytes(double bytes) {
  return fmt::format("{:.0f} MiB", bytes / (1 << 20));
}

double bytes_of(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<double>(tensor.nbytes()) : 0.0;
}

// What allocators of devices count; nothing where there is none, as on the CPU.
std::string on_device(c10::Device device, double known) {
  auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
  if (!allocator) return "";
  const auto stats = allocator->getDeviceStats(device.index());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto used = static_cast<double>(stats.allocated_bytes[kAll].current),
             reserved = static_cast<double>(stats.reserved_bytes[kAll].current);
  return fmt::format(", activations and all else {}; {} more are reserved in pieces that did not fit",
                     mebibytes(used - known), mebibytes(reserved - used));
}

}  // namespace

std::string out_of_memory_text(const std::string& what, const std::vector<nn::TaggedParameter>& parameters,
                               const optim::AdamW& optimizer, const RunConfig& config, c10::Device device) {
  double weights = 0, gradients = 0, moments = 0;
  for (const auto& p : parameters) {
    weights += bytes_of(p.tensor);
    gradients += bytes_of(p.tensor.grad());
  }
  for (const auto& state : optimizer.state()) moments += bytes_of(state.exp_avg) + bytes_of(state.exp_avg_sq);
  std::vector<std::string> knobs;
  if (const auto rows = config.training.micro_batch_size; rows > 1)
    knobs.push_back(fmt::format("training.micro_batch_size={} (is {})", rows / 2, rows));
  const bool recorded = config.model.moe && config.model.moe->cuda_graph;
  if (recorded) knobs.push_back("model.moe.cuda_graph=false");
  if (!recorded && config.training.recompute != model::Recompute::kFull)
    knobs.push_back("training.recompute=full");
  const auto& parallelism = config.parallelism;
  if (config.model.moe && !recorded && parallelism.expert_parallel_size < config.model.moe->num_experts) {
    knobs.push_back(fmt::format("parallelism.expert_parallel_size={} on as many ranks",
                                2 * parallelism.expert_parallel_size));
  }
  if (parallelism.zero_stage == 0 && parallelism.data_parallel_size.value_or(1) > 1)
    knobs.push_back("parallelism.zero_stage=1");
  if (knobs.size() < 3)
    knobs.push_back(
        fmt::format("data.seq_length={} (is {})", config.data.seq_length / 2, config.data.seq_length));
  return fmt::format(
      "out of memory on {}: parameters hold {}, gradients {}, moments {}{}. Less is asked for by {}. "
      "({})",
      device.str(), mebibytes(weights), mebibytes(gradients), mebibytes(moments),
      on_device(device, weights + gradients + moments), fmt::join(knobs, ", "),
      what.substr(0, what.find('\n')));
}

}  // namespace conclave::train
