// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/accounting.h"

#include "conclave/data/tokenizer.h"

namespace conclave::train {

namespace {

int64_t router_parameters(const RunConfig& config, const moe::Registry& registry) {
  const auto& moe = *config.model.moe;
  const auto router =
      registry.routers.at(moe.router.type)
          .make(moe.router.options, {.width = config.model.hidden_size, .num_experts = moe.num_experts});
  int64_t sum = 0;
  for (const auto& parameter : nn::tagged_parameters(*router)) sum += parameter.tensor.numel();
  return sum;
}

model::RankShare share_of_rank(const RunConfig& config) {
  return {.ranks = config.parallelism.data_parallel_size.value_or(config.parallelism.expert_parallel_size),
          .expert_ranks = config.parallelism.expert_parallel_size,
          .shared_moments = config.parallelism.zero_stage > 0,
          .gather_tokens =
              config.model.moe && config.model.moe->dispatcher.type == model::DispatcherType::kAllGather};
}

}  // namespace

RunAccounting account_run(const RunConfig& config, const moe::Registry& registry) {
  RunAccounting result{.share = share_of_rank(config)};
  int64_t active_experts = 0, parameters_of_router = 0;
  if (config.model.moe) {
    const auto& moe = *config.model.moe;
    active_experts = registry.routers.at(moe.router.type).caps(moe.router.options).max_choices;
    result.any_number_of_experts = active_experts == 0;
    if (result.any_number_of_experts) active_experts = moe.num_experts;
    parameters_of_router = router_parameters(config, registry);
  }
  const int64_t rows = config.model.embedding_rows(data::make_tokenizer(config.tokenizer)->vocab_size());
  const auto precision = config.training.precision;
  result.model = model::account(config.model, rows, active_experts, config.data.seq_length,
                                static_cast<int64_t>(c10::elementSize(parameter_dtype(precision))),
                                parameters_of_router, result.share);
  result.activation_bytes = model::activation_bytes(
      config.model, rows,
      {.size = config.training.micro_batch_size,
       .seq_length = config.data.seq_length,
       .active_experts = active_experts,
       .activations = activation_dtype(precision),
       .recompute = config.training.recompute,
       .share = result.share,
       .device = config.device == Device::kCuda ? c10::DeviceType::CUDA : c10::DeviceType::CPU});
  return result;
}

}  // namespace conclave::train
