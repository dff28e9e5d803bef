// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/resolve.h"

#include <algorithm>
#include <memory>
#include <string>

#include <fmt/format.h>

#include "conclave/data/batch_stream.h"
#include "conclave/moe/registry.h"
#include "conclave/ops/kernel_table.h"
#include "conclave/ops/product.h"
#include "conclave/train/run_config.h"

namespace conclave::train {

int64_t sequences_per_epoch(const data::Dataset& dataset) {
  return data::BatchStream(dataset, data::StreamOptions{.num_workers = 0}).num_windows();
}

namespace {

// By values that all ranks share: whichever moves fewer bytes when tokens spread evenly. Of P ranks one sends
// k / P rows for each token and value to each other one, and gets as many back; or each token once, and gets
// the sums back in fp32 or wider.
model::DispatcherType choose_dispatcher(const RunConfig& config, const moe::Registry& registry,
                                        std::string& reason) {
  const int64_t ranks = config.parallelism.expert_parallel_size;
  if (ranks == 1) {
    reason = "auto: every rank has all experts";
    return model::DispatcherType::kLocal;
  }
  if (config.model.moe->dispatcher.pad_to_capacity) {
    reason = "auto: pad_to_capacity sends rows to experts";
    return model::DispatcherType::kAllToAll;
  }
  const auto& router = config.model.moe->router;
  const int64_t choices = registry.routers.at(router.type).caps(router.options).max_choices;
  const auto row = static_cast<int64_t>(c10::elementSize(activation_dtype(config.training.precision)));
  if (2 * choices * row > ranks * (row + std::max<int64_t>(row, 4))) {
    reason = fmt::format("auto: {} experts a token on {} ranks", choices, ranks);
    return model::DispatcherType::kAllGather;
  }
  reason = "auto: the experts are on several ranks";
  return model::DispatcherType::kAllToAll;
}

}  // namespace

std::map<std::string, std::string> resolve_automatic(RunConfig& config, const moe::Registry& registry,
                                                     std::optional<int64_t> num_ranks) {
  std::map<std::string, std::string> reasons;
  if (config.device == Device::kAuto) {
    const auto absence = ops::absence_of(c10::DeviceType::CUDA);
    config.device = absence.empty() ? Device::kCuda : Device::kCpu;
    reasons["device"] = "auto: " + (absence.empty() ? "this machine has a GPU" : absence);
  }
  if (config.training.precision == Precision::kAuto) {
    const bool gpu = config.device == Device::kCuda;
    const auto type = gpu ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
    const bool fast = ops::product_dtype(type, c10::ScalarType::BFloat16) == c10::ScalarType::BFloat16;
    config.training.precision = fast ? Precision::kBf16 : Precision::kFp32;
    reasons["training.precision"] = fmt::format("auto: {} {} bf16 at speed", gpu ? "a GPU" : "this CPU",
                                                fast ? "multiplies" : "does not multiply");
  }
  auto& parallelism = config.parallelism;
  if (!parallelism.data_parallel_size) {
    parallelism.data_parallel_size = num_ranks.value_or(parallelism.expert_parallel_size);
    reasons["parallelism.data_parallel_size"] =
        num_ranks ? "auto: the ranks that were started" : "auto: as many ranks as share the experts";
  }
  if (parallelism.backend == Backend::kAuto) {
    const bool one = *parallelism.data_parallel_size == 1;
    const bool gpu = config.device == Device::kCuda;
    parallelism.backend = one ? Backend::kLocal : gpu ? Backend::kNccl : Backend::kGloo;
    reasons["parallelism.backend"] =
        one ? "auto: one rank" : fmt::format("auto: several ranks on {}", gpu ? "GPUs" : "CPUs");
  }
  if (!config.model.vocab_size) {
    config.model.vocab_size =
        config.model.embedding_rows(data::make_tokenizer(config.tokenizer)->vocab_size());
    reasons["model.vocab_size"] = "auto: size of the tokenizer";
  }
  if (config.model.moe && config.model.moe->dispatcher.type == model::DispatcherType::kAuto) {
    auto& reason = reasons["model.moe.dispatcher.type"];
    config.model.moe->dispatcher.type = choose_dispatcher(config, registry, reason);
  }
  return reasons;
}

void mark_resolved(config::Node& dump, const std::map<std::string, std::string>& reasons) {
  for (const auto& [key, reason] : reasons) {
    config::Node* node = &dump;
    for (size_t begin = 0; node && begin <= key.size();) {
      const size_t dot = std::min(key.find('.', begin), key.size());
      node = node->find(key.substr(begin, dot - begin));
      begin = dot + 1;
    }
    if (node) node->origin = {.source = std::make_shared<const config::Source>(config::Source{reason, ""})};
  }
}

}  // namespace conclave::train
