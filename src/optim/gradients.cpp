// SPDX-License-Identifier: Apache-2.0
#include "conclave/optim/gradients.h"

#include <cmath>

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include "conclave/ops/collectives.h"

namespace conclave::optim {

namespace {

constexpr int64_t kBucketElements = int64_t{1} << 22;

}  // namespace

Gradients::Gradients(std::vector<nn::TaggedParameter> parameters, comm::RankGroups ranks)
    : parameters_(std::move(parameters)), ranks_(std::move(ranks)) {
  for (const auto reduce_group : {nn::ReduceGroup::kData, nn::ReduceGroup::kExpertData}) {
    if (group(reduce_group).size() == 1) continue;
    Bucket bucket;
    bucket.group = reduce_group;
    const auto close = [&] {
      if (!bucket.parameters.empty()) buckets_.push_back(bucket);
      bucket.parameters.clear();
      bucket.size = 0;
    };
    for (size_t i = parameters_.size(); i-- > 0;) {
      const auto& p = parameters_[i];
      if (p.tag.reduce_group != reduce_group || !p.tensor.requires_grad()) continue;
      const bool other_type =
          !bucket.parameters.empty() &&
          parameters_[bucket.parameters[0]].tensor.scalar_type() != p.tensor.scalar_type();
      if (other_type || bucket.size + p.tensor.numel() > kBucketElements) close();
      bucket.parameters.push_back(i);
      bucket.size += p.tensor.numel();
    }
    close();
  }
}

comm::Communicator& Gradients::group(nn::ReduceGroup group) const {
  return group == nn::ReduceGroup::kData ? *ranks_.data : *ranks_.expert_data;
}

void Gradients::sum_over_ranks() {
  const c10::NoGradGuard no_grad;
  for (const auto& bucket : buckets_) sum(bucket);
}

// The gradients one after the other, and behind them for each one whether it is there.
void Gradients::sum(const Bucket& bucket) {
  const auto count = static_cast<int64_t>(bucket.parameters.size());
  const auto flat = at::zeros({bucket.size + count}, parameters_[bucket.parameters[0]].tensor.options());
  const auto visit = [&](const at::Tensor& values, auto body) {
    int64_t begin = 0;
    for (int64_t i = 0; i < count; ++i) {
      const auto& p = parameters_[bucket.parameters[static_cast<size_t>(i)]].tensor;
      body(p, values.narrow(0, begin, p.numel()).view(p.sizes()), values.narrow(0, bucket.size + i, 1));
      begin += p.numel();
    }
  };
  visit(flat, [](const at::Tensor& p, const at::Tensor& part, const at::Tensor& present) {
    if (!p.grad().defined()) return;
    part.copy_(p.grad());
    present.fill_(1);
  });
  group(bucket.group).all_reduce({flat.mutable_data_ptr(), flat.numel(), ops::data_type(flat.scalar_type())});
  visit(flat, [](const at::Tensor& p, const at::Tensor& part, const at::Tensor& present) {
    if (present.item<double>() == 0) return;
    if (!p.grad().defined()) p.mutable_grad() = at::empty_like(p);
    p.grad().copy_(part);
  });
}

double Gradients::norm() const {
  double data = 0.0, experts = 0.0;
  for (const auto& p : parameters_) {
    if (!p.tensor.grad().defined()) continue;
    const double norm = p.tensor.grad().norm().item<double>();
    (p.tag.reduce_group == nn::ReduceGroup::kData ? data : experts) += norm * norm;
  }
  ranks_.expert->all_reduce({&experts, 1, comm::DataType::kFloat64});
  return std::sqrt(data + experts);
}

}  // namespace conclave::optim
