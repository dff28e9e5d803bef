// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "commands.h"
#include "conclave/data/tokenizer.h"

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

// Of one router. It is built for this: only the plug-in knows.
std::optional<int64_t> router_parameters(const train::RunConfig& config, const moe::Registry& registry) {
  if (!config.model.moe) return std::nullopt;
  const auto& moe = *config.model.moe;
  const auto router =
      registry.routers.at(moe.router.type)
          .make(moe.router.options, {.width = config.model.hidden_size, .num_experts = moe.num_experts});
  int64_t sum = 0;
  for (const auto& parameter : nn::tagged_parameters(*router)) sum += parameter.tensor.numel();
  return sum;
}

// Experts per token; all of them where the router fixes no number.
int64_t active_experts(const train::RunConfig& config, const moe::Registry& registry, bool& bound) {
  bound = false;
  if (!config.model.moe) return 0;
  const auto& moe = *config.model.moe;
  const int64_t choices = registry.routers.at(moe.router.type).caps(moe.router.options).max_choices;
  bound = choices == 0;
  return bound ? moe.num_experts : choices;
}

int64_t bytes_per_value(const train::RunConfig& config) {
  return config.training.precision == train::Precision::kFp64 ? 8 : 4;
}

int64_t rows_of_embedding(const train::RunConfig& config) {
  return config.model.embedding_rows(data::make_tokenizer(config.tokenizer)->vocab_size());
}

}  // namespace

model::Accounting account_model(const train::RunConfig& config, const moe::Registry& registry) {
  bool bound = false;
  return model::account(config.model, rows_of_embedding(config), active_experts(config, registry, bound),
                        config.data.seq_length, bytes_per_value(config), router_parameters(config, registry));
}

std::string describe_model(const train::RunConfig& config, const moe::Registry& registry) {
  const int64_t seq = config.data.seq_length, batch = config.training.micro_batch_size;
  const auto a = account_model(config, registry);
  bool bound = false;
  const int64_t experts = active_experts(config, registry, bound);
  const int64_t activations = model::activation_bytes(config.model, rows_of_embedding(config), experts, batch,
                                                      seq, bytes_per_value(config));
  return fmt::format(
      "parameters  {} total, {} active per token{}\n"
      "compute     {}FLOP per token, forward and backward\n"
      "memory      about {}: parameters, gradients and moments {}, activations of a micro-batch of {} x {} "
      "tokens {}",
      amount(static_cast<double>(a.total_parameters)), amount(static_cast<double>(a.active_parameters)),
      bound ? " (at most: this router fixes no number of experts per token)" : "", amount(a.flops_per_token),
      mebibytes(a.training_state_bytes + activations), mebibytes(a.training_state_bytes), batch, seq,
      mebibytes(activations));
}

}  // namespace conclave::cli
