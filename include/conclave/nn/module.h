// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <torch/nn/module.h>

#include "conclave/core/random.h"

namespace conclave::nn {

// What a parameter is for: decides weight decay, learning-rate multiplier and initialisation, never its name.
enum class ParamRole { kEmbedding, kMatrix, kNorm, kBias, kRouter, kExpert, kHead };

// Ranks over which the gradients of a parameter are summed: all that hold it (comm::RankGroups).
enum class ReduceGroup { kData, kExpertData };

// What optimizer, clipper, checkpoint and planner need to know of a parameter; they read nothing else.
struct ParamTag {
  // A slice of the tensor with a logical name of its own: grouped GEMM wants gate beside up and experts
  // stacked, a checkpoint wants each under its own name. `{expert}` in a name stands for the global expert
  // id.
  struct Part {
    std::string logical_name;  // relative to the module, e.g. "experts.{expert}.gate_proj.weight"
    int64_t dim = 0;           // sliced dimension (of one expert's slice, if there is an expert dimension)
    int64_t begin = 0;
    int64_t size = 0;
  };
  ParamRole role = ParamRole::kMatrix;
  std::vector<Part> parts = {};             // empty: the whole tensor under the parameter's own name
  std::optional<int64_t> expert_dim = {};   // dimension that counts experts
  int64_t first_expert = 0;                 // global id of index 0 of that dimension,
  int64_t expert_stride = 1;                // and from one index to the next
  std::optional<int64_t> num_experts = {};  // on all ranks together; null: those of that dimension
  std::optional<int64_t> shard_dim = {};    // dimension that tensor parallelism splits
  std::optional<double> init_uniform = {};  // initial values U(-x, x) instead of the rule of the role
  ReduceGroup reduce_group = ReduceGroup::kData;
};

// Thin base: an ordinary torch::nn::Module whose parameters carry tags. Nothing else is added, so our modules
// work in anybody's LibTorch program.
class Module : public torch::nn::Module {
 public:
  const std::map<std::string, ParamTag>& tags() const { return tags_; }

 protected:
  at::Tensor register_tagged(const std::string& name, at::Tensor value, ParamTag tag);

 private:
  std::map<std::string, ParamTag> tags_;
};

struct TaggedParameter {
  std::string name;  // dotted path from the root
  at::Tensor tensor;
  ParamTag tag;
};

// All parameters below `root` in registration order. Parameters of modules that are not ours get a tag by
// shape: one dimension is kBias, more are kMatrix.
std::vector<TaggedParameter> tagged_parameters(const torch::nn::Module& root);

// Fills every tagged parameter in place: N(0, range^2) for matrices, embeddings, head, router and experts, 1
// for norms, 0 for biases. Each value is a function of (seed, parameter name, element), so the result depends
// neither on the order of construction nor on other layers, and is the same in every dtype up to rounding.
void initialise(torch::nn::Module& root, double range, uint64_t seed);

}  // namespace conclave::nn
