// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "conclave/config/node.h"
#include "conclave/config/problems.h"

namespace conclave::data {
struct Dataset;
}

namespace conclave::moe {
struct Registry;
}

namespace conclave::train {

struct RunConfig;

// For RunConfig::sequences_per_epoch.
int64_t sequences_per_epoch(const data::Dataset& dataset);

// Decides every `auto` of the tree, before anything is frozen or started, and returns the reason of each by
// key ("model.vocab_size" -> "auto: size of the tokenizer"). `num_ranks`: as in read_run_config.
std::map<std::string, std::string> resolve_automatic(RunConfig& config, const moe::Registry& registry,
                                                     std::optional<int64_t> num_ranks = {});

// Makes the reasons the origins of those values in a dumped tree.
void mark_resolved(config::Node& dump, const std::map<std::string, std::string>& reasons);

// Moves the spellings of other frameworks to the keys that they mean (docs/training.md lists them), with a
// note each; an alias beside its canonical key is a problem. Hugging Face names of the MoE part may stand
// directly under `model`, as in a config.json.
void read_aliases(config::Node& root, config::Problems& problems);

}  // namespace conclave::train
