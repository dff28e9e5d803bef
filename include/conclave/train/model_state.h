// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "conclave/comm/groups.h"
#include "conclave/nn/module.h"
#include "conclave/optim/optimizer.h"
#include "conclave/optim/parameter_shards.h"
#include "conclave/train/checkpoint_store.h"

namespace conclave::train {

// A parameter under its logical names: one slice for a plain tensor, one per expert and part for stacked ones
// ("layers_0.moe.experts.3.gate_proj.weight"). The same slicing applies to anything of the parameter's shape.
struct NamedSlice {
  std::string name;
  at::Tensor tensor;      // a view; contiguous
  int64_t first_row = 0;  // of what `tensor` is a part of
  int64_t num_rows = 1;   // of the whole; 1 for a scalar
  bool is_whole() const { return tensor.dim() == 0 || tensor.size(0) == num_rows; }
};
std::vector<NamedSlice> logical_slices(const nn::TaggedParameter& parameter, const at::Tensor& values);
// The same of `rows` of the parameter alone, of which `values` holds nothing else.
std::vector<NamedSlice> logical_slices(const nn::TaggedParameter& parameter, const at::Tensor& values,
                                       optim::RowRange rows);
// Names of all slices, those of the experts on other ranks too.
std::vector<std::string> logical_names(const nn::TaggedParameter& parameter);

// State without gradient that belongs to the model: selection biases.
std::vector<NamedSlice> named_buffers(const torch::nn::Module& root);

// What one rank writes of a checkpoint, so that the ranks together write everything once.
struct CheckpointShare {
  struct File {
    int number = 1, of = 1;
  };
  bool experts = true;            // those of this rank
  bool data = true;               // everything else
  bool moments_by_owner = false;  // moments of all rows that this rank owns, whatever it writes besides
  File model = {}, optimizer = {};
};
CheckpointShare checkpoint_share(const optim::ParameterShards& shards);

// This rank's files of a checkpoint: model.safetensors and optimizer.safetensors (moments as NAME.exp_avg,
// .exp_avg_sq), model-00001-of-00002.safetensors and so on where several ranks write; maybe none. The views
// point into the tensors.
// Moments of a part of a tensor's rows say so in the file's metadata (rows_entry).
std::vector<FileContents> checkpoint_files(const optim::ParameterShards& shards,
                                           const std::vector<NamedSlice>& buffers,
                                           const optim::AdamW& optimizer);

// Copies values back: of the experts, those of this rank, whatever ranks wrote the checkpoint. Throws Error
// (kData) that names the tensor, the file and both shapes; a missing tensor or one that belongs to no rank's
// model is an error too.
void restore_weights(const Checkpoint& checkpoint, const std::vector<nn::TaggedParameter>& parameters,
                     const std::vector<NamedSlice>& buffers);
// The same of the moments of the rows that this rank owns.
void restore_moments(const Checkpoint& checkpoint, const optim::ParameterShards& shards,
                     const optim::AdamW& optimizer);

}  // namespace conclave::train
