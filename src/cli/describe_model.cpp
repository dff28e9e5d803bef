// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "commands.h"
#include "conclave/train/accounting.h"

namespace conclave::cli {

namespace {

std::string amount(double value) {
  constexpr const char* kUnits[] = {"", " k", " M", " G", " T"};
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f}{}", value, unit == 0 ? 0 : 2, kUnits[unit]);
}

std::string mebibytes(int64_t bytes) {
  return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

std::string describe_model(const train::RunConfig& config, const moe::Registry& registry) {
  const auto run = train::account_run(config, registry);
  const auto why = config.resolved.find("device");
  return fmt::format(
      "device      {}{}\n"
      "parameters  {} total, {} active per token{}\n"
      "compute     {}FLOP per token, forward and backward\n"
      "memory      about {}{}: parameters, gradients and moments {}, activations of a micro-batch of {} x {} "
      "tokens {}",
      config.device == train::Device::kCuda ? "cuda" : "cpu",
      why == config.resolved.end() ? "" : fmt::format(" ({})", why->second),
      amount(static_cast<double>(run.model.total_parameters)),
      amount(static_cast<double>(run.model.active_parameters)),
      run.any_number_of_experts ? " (at most: this router fixes no number of experts per token)" : "",
      amount(run.model.flops_per_token), mebibytes(run.model.training_state_bytes + run.activation_bytes),
      run.share.ranks > 1 ? fmt::format(" on each of {} ranks", run.share.ranks) : "",
      mebibytes(run.model.training_state_bytes), config.training.micro_batch_size, config.data.seq_length,
      mebibytes(run.activation_bytes));
}

}  // namespace conclave::cli
