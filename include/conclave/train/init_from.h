// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <vector>

#include "conclave/core/log.h"
#include "conclave/train/model_state.h"

namespace conclave::train {

// Copies weights from a checkpoint folder (its checksums are verified) or from one safetensors file, whose
// tensors carry our logical names; any floating dtype is converted. Every parameter must be there with its
// shape, and every tensor must belong to the model: else Error (kData) that names all mismatches, and the
// model keeps what it had. State without gradient (selection biases) is taken where the file has it; where it
// has none, it stays as it was and the log says so.
void load_weights(const std::filesystem::path& from, const std::vector<nn::TaggedParameter>& parameters,
                  const std::vector<NamedSlice>& buffers, const Log& log);

}  // namespace conclave::train
