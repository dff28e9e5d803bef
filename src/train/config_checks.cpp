// SPDX-License-Identifier: Apache-2.0
#include "config_checks.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/ops/kernel_table.h"

namespace conclave::train {

const config::Node* nearest_written(const config::Node& root, std::initializer_list<const char*> path) {
  const config::Node* node = &root;
  for (const char* key : path) {
    const config::Node* next = node->find(key);
    if (!next) break;  // the nearest section that was written
    node = next;
  }
  return node;
}

void check_router(const RunConfig& config, const moe::Registry& registry, const config::Node& root,
                  config::Problems& problems) {
  if (!config.model.moe) return;
  const auto& moe = *config.model.moe;
  const auto caps = registry.routers.at(moe.router.type).caps(moe.router.options);
  const auto& origin = nearest_written(root, {"model", "moe", "router"})->origin;
  if (!caps.causal && !moe.allow_noncausal && config.model.objective == model::Objective::kCausalLm) {
    problems.add(
        origin,
        fmt::format(
            "router '{}' as configured looks at later tokens, but the model is trained to predict them",
            moe.router.type),
        "choose a causal router (topk), order capacity by position, train with model.objective: masked_lm, "
        "or set model.moe.router.allow_noncausal: true");
  }
  if (caps.whole_group && !caps.batch_independent && config.data.packing == data::Packing::kConcat &&
      !moe.allow_cross_document) {
    problems.add(
        origin,
        fmt::format("router '{}' compares all tokens of a micro-batch, and data.packing: concat puts "
                    "several documents into one row",
                    moe.router.type),
        "set data.packing: none, or model.moe.router.allow_cross_document: true, or use soft, whose "
        "group is one document");
  }
  if (moe.balance_update.type != "none" && !caps.selection_bias) {
    problems.add(nearest_written(root, {"model", "moe", "balance_update"})->origin,
                 fmt::format("balance_update '{}' changes a selection bias, and router '{}' has none",
                             moe.balance_update.type, moe.router.type),
                 "use it with topk, or remove it");
  }
  if (caps.max_choices > moe.num_experts) {
    problems.add(nearest_written(root, {"model", "moe", "router", "top_k"})->origin,
                 fmt::format("model.moe.router: each token takes {} experts, but there are {}",
                             caps.max_choices, moe.num_experts),
                 fmt::format("use at most {}", moe.num_experts));
    return;
  }
  const auto& entry = registry.routers.at(moe.router.type);
  const auto refusal = entry.refusal ? entry.refusal(moe.router.options, moe.num_experts) : "";
  if (!refusal.empty()) {
    problems.add(origin, "model.moe.router: " + refusal, "change the router or model.moe.num_experts");
  }
}

void check_aux_losses(const model::MoeOptions& moe, const moe::Registry& registry, const config::Node& root,
                      config::Problems& problems) {
  auto records = registry.routers.at(moe.router.type).caps(moe.router.options).records;
  // With a selection bias it is not the noisy logits alone that select.
  if (moe.balance_update.type != "none") std::erase(records, "threshold");
  const config::Node* list = nearest_written(root, {"model", "moe", "aux_losses"});
  std::vector<std::string> metrics;
  for (size_t i = 0; i < moe.aux_losses.size(); ++i) {
    const auto& loss = moe.aux_losses[i];
    const auto traits = registry.aux_losses.at(loss.type).traits(loss.options);
    const auto& origin = i < list->items.size() ? list->items[i].origin : list->origin;
    for (const auto& record : traits.records) {
      if (std::find(records.begin(), records.end(), record) != records.end()) continue;
      problems.add(
          origin,
          fmt::format("auxiliary loss '{}' reads '{}' of the router, which '{}' as configured does not "
                      "record",
                      loss.type, record, moe.router.type),
          traits.remedy);
    }
    if (std::find(metrics.begin(), metrics.end(), traits.metric) != metrics.end()) {
      problems.add(origin, fmt::format("auxiliary loss '{}' stands twice with the same scope", loss.type),
                   "remove one, or give them different scopes");
    }
    metrics.push_back(traits.metric);
  }
}

namespace {

// "12 or 16": the multiples of `unit` next to `value`.
std::string nearest_multiples(int64_t value, int64_t unit) {
  const int64_t below = value / unit * unit;
  return below > 0 ? fmt::format("{} or {}", below, below + unit) : fmt::format("{}", unit);
}

// What was started against what the file asks for.
void check_started(const ParallelismOptions& parallelism, int64_t num_ranks, const config::Node& root,
                   config::Problems& problems) {
  const int64_t experts = parallelism.expert_parallel_size;
  if (parallelism.data_parallel_size && *parallelism.data_parallel_size != num_ranks) {
    problems.add(nearest_written(root, {"parallelism", "data_parallel_size"})->origin,
                 fmt::format("parallelism.data_parallel_size: {} ranks are asked for, started: {}",
                             *parallelism.data_parallel_size, num_ranks),
                 fmt::format("write {} or auto, or start {} (conclave launch -n {} train ...)", num_ranks,
                             *parallelism.data_parallel_size, *parallelism.data_parallel_size));
  } else if (num_ranks % experts != 0) {
    problems.add(
        nearest_written(root, {"parallelism", "expert_parallel_size"})->origin,
        fmt::format("parallelism.expert_parallel_size: {} ranks are to share the experts, started: {}",
                    experts, num_ranks),
        fmt::format("write {}, or start a multiple of {} (conclave launch -n {} train ...)",
                    divisors_text(num_ranks), experts, experts));
  }
}

void check_padding(const RunConfig& config, const moe::Registry& registry, const config::Node& root,
                   config::Problems& problems) {
  const auto& moe = *config.model.moe;
  if (!moe.dispatcher.pad_to_capacity) return;
  const auto add = [&](const std::string& problem, const std::string& remedy) {
    problems.add(nearest_written(root, {"model", "moe", "dispatcher", "pad_to_capacity"})->origin,
                 "model.moe.dispatcher.pad_to_capacity: " + problem, remedy);
  };
  if (moe.dispatcher.type == model::DispatcherType::kAllGather)
    add("all_gather sends tokens, not rows for experts", "write type: all_to_all or auto");
  if (moe.dispatcher.rank_budget)
    add("what a rank gets is the capacity of its experts, whatever the rank_budget",
        "leave one of the two out");
  if (!registry.routers.at(moe.router.type).caps(moe.router.options).drops_in_training)
    add("the router has no capacity", "set model.moe.router.capacity.factor");
}

// What a graph records has to be the same in every step, and nothing of it may wait for the GPU.
void check_graph(const RunConfig& config, const moe::Registry& registry, bool gpus, const config::Node& root,
                 config::Problems& problems) {
  if (!config.model.moe || !config.model.moe->cuda_graph) return;
  const auto& moe = *config.model.moe;
  const auto refuse = [&](const std::string& problem, const std::string& remedy) {
    problems.add(nearest_written(root, {"model", "moe", "cuda_graph"})->origin,
                 "model.moe.cuda_graph: " + problem, remedy);
  };
  if (!gpus) refuse("there is no GPU to record it", "write device: cuda, or leave it out");
  if (!registry.routers.at(moe.router.type).caps(moe.router.options).same_launches) {
    refuse(fmt::format("router '{}' as configured draws at random, follows a schedule or decides on the host",
                       moe.router.type),
           "use topk or expert_choice with constant values, without jitter, noise, random order or a second "
           "expert by chance");
  }
  const auto dispatcher = moe.dispatcher.type;
  const bool local =
      dispatcher == model::DispatcherType::kAuto || dispatcher == model::DispatcherType::kLocal;
  if (config.parallelism.expert_parallel_size > 1 || !local)
    refuse("exchanges between ranks are not recorded",
           "write parallelism.expert_parallel_size: 1, and model.moe.dispatcher.type: auto");
  if (config.training.recompute != model::Recompute::kNone)
    refuse("a recorded layer is not recomputed", "write training.recompute: none");
  if (config.data.packing != data::Packing::kConcat)
    refuse("rows end in padding, of which a batch has never the same", "write data.packing: concat");
  const bool whole = config.model.hidden_size % 8 == 0 && moe.moe_intermediate_size % 8 == 0;
  if ((config.training.precision != Precision::kBf16 && config.training.precision != Precision::kAuto) ||
      !whole || moe.num_experts > 1023) {
    refuse("the experts are multiplied one after the other, for which the host waits",
           "train in bf16, with widths that are multiples of 8 and at most 1023 experts");
  }
}

void check_experts(const RunConfig& config, const moe::Registry& registry, const config::Node& root,
                   config::Problems& problems) {
  const int64_t ranks = config.parallelism.expert_parallel_size;
  if (ranks == 1) {
    if (config.model.moe && config.model.moe->dispatcher.rank_budget) {
      problems.add(nearest_written(root, {"model", "moe", "dispatcher", "rank_budget"})->origin,
                   "model.moe.dispatcher.rank_budget: one rank has all experts, and gets all rows",
                   "set parallelism.expert_parallel_size, or leave the budget out");
    }
    if (config.model.moe && config.model.moe->dispatcher.pad_to_capacity) {
      problems.add(nearest_written(root, {"model", "moe", "dispatcher", "pad_to_capacity"})->origin,
                   "model.moe.dispatcher.pad_to_capacity: one rank has all experts, and nothing is sent",
                   "set parallelism.expert_parallel_size, or leave it out");
    }
    return;
  }
  const auto& origin = nearest_written(root, {"parallelism", "expert_parallel_size"})->origin;
  if (!config.model.moe) {
    problems.add(origin, "parallelism.expert_parallel_size: the model has no experts to share", "write 1");
    return;
  }
  const auto& moe = *config.model.moe;
  if (moe.num_experts % ranks != 0) {
    problems.add(origin,
                 fmt::format("parallelism.expert_parallel_size: {} ranks cannot share {} experts evenly",
                             ranks, moe.num_experts),
                 fmt::format("use {}", divisors_text(moe.num_experts)));
  }
  if (moe.dispatcher.type == model::DispatcherType::kLocal) {
    problems.add(
        nearest_written(root, {"model", "moe", "dispatcher", "type"})->origin,
        fmt::format("model.moe.dispatcher.type: the experts are on {} ranks, and local reaches those of one",
                    ranks),
        "write all_to_all, all_gather or auto");
  }
  check_padding(config, registry, root, problems);
}

}  // namespace

void check_layout(const RunConfig& config, const moe::Registry& registry, std::optional<int64_t> num_ranks,
                  const config::Node& root, config::Problems& problems) {
  const auto& parallelism = config.parallelism;
  const auto& training = config.training;
  check_experts(config, registry, root, problems);
  if (num_ranks) check_started(parallelism, *num_ranks, root, problems);
  const int64_t ranks =
      num_ranks.value_or(parallelism.data_parallel_size.value_or(parallelism.expert_parallel_size));
  const bool gpus = config.device == Device::kCuda ||
                    (config.device == Device::kAuto && ops::absence_of(c10::DeviceType::CUDA).empty());
  check_graph(config, registry, gpus, root, problems);
  if (parallelism.backend == Backend::kNccl && !gpus) {
    problems.add(nearest_written(root, {"parallelism", "backend"})->origin,
                 "parallelism.backend: nccl connects GPUs, and the ranks compute on CPUs",
                 "write gloo or auto, or device: cuda");
  }
  if (parallelism.backend == Backend::kLocal && ranks > 1) {
    problems.add(nearest_written(root, {"parallelism", "backend"})->origin,
                 fmt::format("parallelism.backend: local is one rank, there are {}", ranks),
                 "write auto or gloo");
  }
  if (training.global_batch_size % (training.micro_batch_size * ranks) != 0) {
    problems.add(
        nearest_written(root, {"training", "global_batch_size"})->origin,
        fmt::format(
            "training.global_batch_size: {} is not divisible by {} ranks with a micro_batch_size of {}",
            training.global_batch_size, ranks, training.micro_batch_size),
        fmt::format("use {}",
                    nearest_multiples(training.global_batch_size, training.micro_batch_size * ranks)));
  }
}

}  // namespace conclave::train
