// SPDX-License-Identifier: Apache-2.0
#include "conclave/optim/gradients.h"

#include <array>
#include <cmath>
#include <utility>

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "conclave/core/error.h"
#include "conclave/ops/collectives.h"

namespace conclave::optim {

// The buckets of a step on their way. A bucket is a row of numbers for every shard: the gradients of the
// shard's rows one after the other, zeros up to the length of the longest, and then for each parameter on how
// many ranks it has a gradient.
struct Gradients::Flight {
  struct Sent {
    at::Tensor flat = {}, mine = {};  // [shards, length]; the sum of this rank's shard [length]
    comm::Work work = {};
    size_t missing = 0;  // gradients that are not complete yet
    bool started = false;
  };

  explicit Flight(std::shared_ptr<const ParameterShards> s) : shards(std::move(s)) { reset(); }

  void reset() {
    next = {};
    sent.clear();
    for (const auto& bucket : shards->buckets()) sent.push_back({.missing = bucket.parameters.size()});
  }

  // The gradient of a parameter of bucket `b` is complete.
  void complete(size_t b, const std::string& name) {
    CONCLAVE_CHECK(
        !sent[b].started && sent[b].missing > 0,
        fmt::format("'{}' gets another part of its gradient after the sum over the ranks began", name));
    --sent[b].missing;
    start_complete_ones(shards->buckets()[b].group);
  }

  // In the order of the buckets of a group, never in that of their completion, which may differ between
  // ranks.
  void start_complete_ones(nn::ReduceGroup group) {
    auto& at = next[static_cast<size_t>(group)];
    for (; at < sent.size(); ++at) {
      if (shards->buckets()[at].group != group) continue;
      if (sent[at].missing > 0) return;
      start(at);
    }
  }
  void start_all() {
    for (size_t b = 0; b < sent.size(); ++b) {
      if (!sent[b].started) start(b);
    }
  }

  // The part of one parameter in the numbers of a shard, and the place of its count.
  template <class Body>
  void visit(const ParameterShards::Bucket& bucket, size_t shard, const at::Tensor& numbers,
             Body body) const {
    int64_t begin = 0;
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      const auto& p = shards->parameters()[bucket.parameters[i]];
      const auto rows = bucket.rows[shard][i];
      const int64_t all = count_rows(p), length = all > 0 ? p.tensor.numel() / all : 0;
      body(bucket.parameters[i], rows,
           numbers.narrow(0, begin, rows.size() * length).view({rows.size(), length}),
           numbers[bucket.shard_size + static_cast<int64_t>(i)]);
      begin += rows.size() * length;
    }
  }

  void start(size_t b) {
    const c10::NoGradGuard no_grad;
    const auto& bucket = shards->buckets()[b];
    auto& s = sent[b];
    s.started = true;
    const auto options = shards->parameters()[bucket.parameters[0]].tensor.options().requires_grad(false);
    const auto num_shards = static_cast<int64_t>(bucket.rows.size());
    const int64_t length = bucket.shard_size + static_cast<int64_t>(bucket.parameters.size());
    s.flat = at::zeros({num_shards, length}, options);
    for (int64_t shard = 0; shard < num_shards; ++shard) {
      visit(bucket, static_cast<size_t>(shard), s.flat[shard],
            [&](size_t i, RowRange rows, const at::Tensor& part, const at::Tensor& count) {
              const auto& p = shards->parameters()[i];
              if (!p.tensor.grad().defined()) return;
              part.copy_(as_rows(p, p.tensor.grad().contiguous()).narrow(0, rows.begin, rows.size()));
              count.fill_(1);
            });
    }
    auto& ranks = shards->group(bucket.group);
    const auto flat = ops::buffer_of(s.flat);
    if (shards->is_shared_out(bucket)) {
      for (const size_t i : bucket.parameters) shards->parameters()[i].tensor.mutable_grad().reset();
      s.mine = at::zeros({length}, options);
      s.work = ranks.start_reduce_scatter(flat, ops::buffer_of(s.mine));
    } else {
      s.mine = s.flat[0];
      s.work = ranks.start_all_reduce(flat);
    }
  }

  // The sums become gradients: in place where the whole parameter is updated here, else a part of the bucket.
  void finish(size_t b) {
    const c10::NoGradGuard no_grad;
    const auto& bucket = shards->buckets()[b];
    auto& s = sent[b];
    s.work.wait();
    s.flat.reset();
    std::vector<at::Tensor> counts;  // of ranks that had a gradient
    visit(bucket, shards->shard(bucket), s.mine,
          [&](size_t, RowRange, const at::Tensor&, const at::Tensor& count) { counts.push_back(count); });
    const auto on_host = at::stack(counts).to(at::kCPU, at::kDouble);
    const auto* ranks_with = on_host.const_data_ptr<double>();
    visit(bucket, shards->shard(bucket), s.mine,
          [&](size_t i, RowRange, const at::Tensor& part, const at::Tensor&) {
            const auto& p = shards->owned()[i].tensor;
            if (*ranks_with++ == 0) return;
            if (shards->is_shared_out(bucket)) {
              p.mutable_grad() = part;
            } else {
              if (!p.grad().defined()) p.mutable_grad() = at::empty_like(p);
              p.grad().copy_(part.view(p.sizes()));
            }
          });
  }

  std::shared_ptr<const ParameterShards> shards;
  std::vector<Sent> sent;           // one for every bucket
  std::array<size_t, 2> next = {};  // bucket to start, by group
  bool armed = false;
};

namespace {

struct Hook : public torch::autograd::PostAccumulateGradHook {
  Hook(std::shared_ptr<Gradients::Flight> f, size_t b, std::string n)
      : flight(std::move(f)), bucket(b), name(std::move(n)) {}
  void operator()(const torch::autograd::Variable&) override { flight->complete(bucket, name); }
  std::shared_ptr<Gradients::Flight> flight;
  size_t bucket;
  std::string name;
};

}  // namespace

Gradients::Gradients(std::vector<nn::TaggedParameter> parameters, comm::RankGroups ranks)
    : Gradients(std::make_shared<ParameterShards>(std::move(parameters), std::move(ranks))) {}

Gradients::Gradients(std::shared_ptr<const ParameterShards> shards)
    : shards_(std::move(shards)), flight_(std::make_shared<Flight>(shards_)) {}

Gradients::~Gradients() {
  unhook();
}

void Gradients::send_as_they_come() {
  flight_->armed = true;
  for (size_t b = 0; b < shards_->buckets().size(); ++b) {
    for (const size_t i : shards_->buckets()[b].parameters) {
      const auto& p = shards_->parameters()[i];
      torch::autograd::impl::set_post_acc_grad_hooks(p.tensor, std::make_unique<Hook>(flight_, b, p.name));
    }
  }
}

void Gradients::unhook() {
  if (!std::exchange(flight_->armed, false)) return;
  for (const auto& bucket : shards_->buckets()) {
    for (const size_t i : bucket.parameters)
      torch::autograd::impl::set_post_acc_grad_hooks(shards_->parameters()[i].tensor, nullptr);
  }
}

void Gradients::sum_over_ranks() {
  unhook();
  flight_->start_all();
  for (size_t b = 0; b < shards_->buckets().size(); ++b) flight_->finish(b);
  flight_->reset();
}

// Where every rank of a group has the whole sum, the first one counts it.
double Gradients::norm() const {
  std::vector<at::Tensor> norms;
  for (size_t i = 0; i < shards_->owned().size(); ++i) {
    const auto& p = shards_->owned()[i];
    const bool counts = shards_->is_shared_out(i) || shards_->group(p.tag.reduce_group).rank() == 0;
    if (!counts || !p.tensor.grad().defined()) continue;
    norms.push_back(p.tensor.grad().norm().to(at::kDouble));
  }
  double squares = 0.0;
  if (!norms.empty()) {
    const auto on_host = at::stack(norms).cpu();
    const auto* norm = on_host.const_data_ptr<double>();
    for (size_t i = 0; i < norms.size(); ++i) squares += norm[i] * norm[i];
  }
  shards_->ranks().world->all_reduce({&squares, 1, comm::DataType::kFloat64});
  return std::sqrt(squares);
}

}  // namespace conclave::optim
