// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "conclave/optim/optimizer.h"
#include "conclave/train/run_config.h"

namespace conclave::train {

// What to say when memory has run out: who holds how much of it, what else there is on a GPU, and the
// settings that ask for less. `what`: the allocator's own words.
std::string out_of_memory_text(const std::string& what, const std::vector<nn::TaggedParameter>& parameters,
                               const optim::AdamW& optimizer, const RunConfig& config, c10::Device device);

}  // namespace conclave::train
