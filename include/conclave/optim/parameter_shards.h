// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "conclave/comm/groups.h"
#include "conclave/nn/module.h"

namespace conclave::optim {

// Rows of a parameter: what one index of the first dimension of a logical tensor selects (of an expert's
// matrix, where experts are stacked), counted through the whole parameter.
struct RowRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
int64_t count_rows(const nn::TaggedParameter& parameter);
// The rows as the first dimension of a matrix; a view.
at::Tensor as_rows(const nn::TaggedParameter& parameter, const at::Tensor& values);

// Which rank updates what. Stage 0: every rank all that it holds. Stage 1 of ZeRO (Rajbhandari et al., 2020,
// section 5.1): the ranks that hold a parameter share its rows out, and only the owner of a row has moments
// for it.
class ParameterShards {
 public:
  // Parameters whose gradients travel together, in the order of the model's backward pass, last ones first.
  // Shard s of the bucket is updated by member s of the group; with one shard for all, by every member.
  struct Bucket {
    nn::ReduceGroup group = {};
    std::vector<size_t> parameters = {};
    std::vector<std::vector<RowRange>> rows = {};  // [shard][place in `parameters`]
    int64_t shard_size = 0;                        // elements of the largest shard
  };

  // zero_stage: 0 or 1.
  explicit ParameterShards(std::vector<nn::TaggedParameter> parameters,
                           comm::RankGroups ranks = comm::single_rank(), int64_t zero_stage = 0);

  const std::vector<nn::TaggedParameter>& parameters() const { return parameters_; }
  // What this rank updates, in the same order: the parameter itself, or its rows as a matrix that shares
  // their memory, maybe without any row.
  const std::vector<nn::TaggedParameter>& owned() const { return owned_; }
  const std::vector<RowRange>& owned_rows() const { return owned_rows_; }

  // Of parameters that require a gradient and are held by several ranks.
  const std::vector<Bucket>& buckets() const { return buckets_; }
  bool is_shared_out(const Bucket& bucket) const { return bucket.rows.size() > 1; }
  bool is_shared_out(size_t parameter) const { return shared_out_[parameter]; }
  // The shard of this rank.
  size_t shard(const Bucket& bucket) const;
  comm::Communicator& group(nn::ReduceGroup group) const;
  const comm::RankGroups& ranks() const { return ranks_; }

  // After the update: the rows of every owner on all ranks that hold the parameter. Called by all ranks.
  void gather() const;

 private:
  void make_buckets(nn::ReduceGroup group, int64_t zero_stage);
  void deal_rows(Bucket& bucket, int64_t num_shards) const;
  void take_owned_rows();

  std::vector<nn::TaggedParameter> parameters_, owned_;
  std::vector<RowRange> owned_rows_;
  std::vector<bool> shared_out_;
  comm::RankGroups ranks_;
  std::vector<Bucket> buckets_;
};

}  // namespace conclave::optim
