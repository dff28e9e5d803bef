// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "conclave/comm/groups.h"
#include "conclave/nn/module.h"
#include "conclave/optim/optimizer.h"
#include "conclave/train/checkpoint_store.h"

namespace conclave::train {

// A parameter under its logical names: one slice for a plain tensor, one per expert and part for stacked ones
// ("layers_0.moe.experts.3.gate_proj.weight"). The same slicing applies to anything of the parameter's shape.
struct NamedSlice {
  std::string name;
  at::Tensor tensor;  // a view; contiguous
};
std::vector<NamedSlice> logical_slices(const nn::TaggedParameter& parameter, const at::Tensor& values);
// Names of all slices, those of the experts on other ranks too.
std::vector<std::string> logical_names(const nn::TaggedParameter& parameter);

// State without gradient that belongs to the model: selection biases.
std::vector<NamedSlice> named_buffers(const torch::nn::Module& root);

// What one rank writes of a checkpoint, so that the ranks together write everything once.
struct CheckpointShare {
  bool experts = true;  // those of this rank
  bool data = true;     // everything else
  int file = 1, num_files = 1;
};
CheckpointShare checkpoint_share(const comm::RankGroups& ranks);

// This rank's files of a checkpoint: model.safetensors and optimizer.safetensors (moments as NAME.exp_avg,
// .exp_avg_sq), model-00001-of-00002.safetensors and so on where several ranks write; maybe none. The views
// point into the tensors.
std::vector<FileContents> checkpoint_files(const std::vector<nn::TaggedParameter>& parameters,
                                           const std::vector<NamedSlice>& buffers,
                                           const optim::AdamW& optimizer, const CheckpointShare& share = {});

// Copies values back: of the experts, those of this rank, whatever ranks wrote the checkpoint. Throws Error
// (kData) that names the tensor, the file and both shapes; a missing tensor or one that belongs to no rank's
// model is an error too. `optimizer` may be null: weights only.
void load_checkpoint(const Checkpoint& checkpoint, const std::vector<nn::TaggedParameter>& parameters,
                     const std::vector<NamedSlice>& buffers, const optim::AdamW* optimizer);

}  // namespace conclave::train
