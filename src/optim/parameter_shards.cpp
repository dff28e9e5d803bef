// SPDX-License-Identifier: Apache-2.0
#include "conclave/optim/parameter_shards.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/ops/collectives.h"

namespace conclave::optim {

namespace {

constexpr int64_t kBucketElements = int64_t{1} << 22;

}  // namespace

int64_t count_rows(const nn::TaggedParameter& parameter) {
  const auto& t = parameter.tensor;
  if (t.dim() == 0) return 1;
  if (!parameter.tag.expert_dim) return t.size(0);
  CONCLAVE_CHECK(*parameter.tag.expert_dim == 0,
                 fmt::format("'{}': experts are stacked in dimension {}, not 0", parameter.name,
                             *parameter.tag.expert_dim));
  return t.dim() == 1 ? t.size(0) : t.size(0) * t.size(1);
}

at::Tensor as_rows(const nn::TaggedParameter& parameter, const at::Tensor& values) {
  const int64_t rows = count_rows(parameter);
  return values.view({rows, rows > 0 ? values.numel() / rows : 1});
}

ParameterShards::ParameterShards(std::vector<nn::TaggedParameter> parameters, comm::RankGroups ranks,
                                 int64_t zero_stage)
    : parameters_(std::move(parameters)), ranks_(std::move(ranks)) {
  CONCLAVE_CHECK(zero_stage == 0 || zero_stage == 1, fmt::format("ZeRO stage {}", zero_stage));
  for (const auto group : {nn::ReduceGroup::kData, nn::ReduceGroup::kExpertData})
    make_buckets(group, zero_stage);
  take_owned_rows();
}

comm::Communicator& ParameterShards::group(nn::ReduceGroup group) const {
  return group == nn::ReduceGroup::kData ? *ranks_.data : *ranks_.expert_data;
}

size_t ParameterShards::shard(const Bucket& bucket) const {
  return is_shared_out(bucket) ? static_cast<size_t>(group(bucket.group).rank()) : 0;
}

void ParameterShards::make_buckets(nn::ReduceGroup reduce_group, int64_t zero_stage) {
  const int members = group(reduce_group).size();
  if (members == 1) return;
  Bucket bucket{.group = reduce_group};
  int64_t size = 0;
  const auto close = [&] {
    if (bucket.parameters.empty()) return;
    deal_rows(bucket, zero_stage == 0 ? 1 : members);
    buckets_.push_back(std::exchange(bucket, Bucket{.group = reduce_group}));
    size = 0;
  };
  for (size_t i = parameters_.size(); i-- > 0;) {
    const auto& p = parameters_[i];
    if (p.tag.reduce_group != reduce_group || !p.tensor.requires_grad()) continue;
    const bool other_type = !bucket.parameters.empty() &&
                            parameters_[bucket.parameters[0]].tensor.scalar_type() != p.tensor.scalar_type();
    if (other_type || size + p.tensor.numel() > kBucketElements) close();
    bucket.parameters.push_back(i);
    size += p.tensor.numel();
  }
  close();
}

// A row goes to the shard in whose part of the bucket its middle lies: the shards differ by a row at most,
// and no row is cut, so that an owner's part of a logical tensor is a rectangle.
void ParameterShards::deal_rows(Bucket& bucket, int64_t num_shards) const {
  int64_t total = 0;
  for (const size_t i : bucket.parameters) total += parameters_[i].tensor.numel();
  const auto shards = static_cast<size_t>(num_shards);
  bucket.rows.assign(shards, std::vector<RowRange>(bucket.parameters.size()));
  std::vector<int64_t> sizes(shards, 0);
  int64_t begin = 0;
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    const auto& p = parameters_[bucket.parameters[i]];
    const int64_t rows = count_rows(p), length = rows > 0 ? p.tensor.numel() / rows : 0;
    int64_t row = 0;
    for (int64_t s = 0; s < num_shards; ++s) {
      const int64_t first = row;
      // 2 (begin + row length) + length is twice the middle of a row.
      while (row < rows && (2 * (begin + row * length) + length) * num_shards < 2 * total * (s + 1)) ++row;
      if (s + 1 == num_shards) row = rows;
      bucket.rows[static_cast<size_t>(s)][i] = {first, row};
      sizes[static_cast<size_t>(s)] += (row - first) * length;
    }
    begin += p.tensor.numel();
  }
  bucket.shard_size = *std::max_element(sizes.begin(), sizes.end());
}

void ParameterShards::take_owned_rows() {
  owned_ = parameters_;
  shared_out_.assign(parameters_.size(), false);
  for (const auto& p : parameters_) owned_rows_.push_back({0, count_rows(p)});
  for (const auto& bucket : buckets_) {
    if (!is_shared_out(bucket)) continue;
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      const size_t at = bucket.parameters[i];
      const auto range = bucket.rows[shard(bucket)][i];
      owned_rows_[at] = range;
      shared_out_[at] = true;
      owned_[at].tensor = as_rows(parameters_[at], parameters_[at].tensor.detach())
                              .narrow(0, range.begin, range.size())
                              .set_requires_grad(true);
    }
  }
}

void ParameterShards::gather() const {
  const c10::NoGradGuard no_grad;
  for (const auto& bucket : buckets_) {
    if (!is_shared_out(bucket)) continue;
    auto& ranks = group(bucket.group);
    const auto options = parameters_[bucket.parameters[0]].tensor.options().requires_grad(false);
    const auto mine = at::zeros({bucket.shard_size}, options);
    const auto all = at::empty({static_cast<int64_t>(bucket.rows.size()), bucket.shard_size}, options);
    // The rows of a shard one after the other.
    const auto visit = [&](size_t shard, const at::Tensor& values, auto body) {
      int64_t begin = 0;
      for (size_t i = 0; i < bucket.parameters.size(); ++i) {
        const auto& p = parameters_[bucket.parameters[i]];
        const auto rows = bucket.rows[shard][i];
        const auto place = as_rows(p, p.tensor).narrow(0, rows.begin, rows.size());
        body(place, values.narrow(0, begin, place.numel()).view(place.sizes()));
        begin += place.numel();
      }
    };
    visit(shard(bucket), mine, [](const at::Tensor& rows, const at::Tensor& part) { part.copy_(rows); });
    ranks.all_gather(ops::const_buffer_of(mine), ops::buffer_of(all));
    for (size_t s = 0; s < bucket.rows.size(); ++s) {
      if (s == shard(bucket)) continue;
      visit(s, all[static_cast<int64_t>(s)],
            [](const at::Tensor& rows, const at::Tensor& part) { rows.copy_(part); });
    }
  }
}

}  // namespace conclave::optim
