// SPDX-License-Identifier: Apache-2.0
// Sums and norm of gradients over ranks, against all of them on one.
#include "conclave/optim/gradients.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "conclave/comm/counting.h"
#include "conclave/core/error.h"

namespace {

using namespace conclave;
using nn::ReduceGroup;

constexpr int kRanks = 4, kExpertParallel = 2;

// Four ranks, two halves of the experts, each half on two ranks.
struct Rank {
  explicit Rank(comm::Communicator& world)
      : rank(world.rank()), groups(comm::make_groups(comm::borrowed(world), {.expert = kExpertParallel})) {
    add("dense", ReduceGroup::kData, 1.0 + rank);
    add("expert", ReduceGroup::kExpertData, 10.0 * (1 + rank));
    add("late", ReduceGroup::kData, rank == 2 ? 5.0 : NAN);  // the others have no gradient
    add("never", ReduceGroup::kData, NAN);
    add("frozen", ReduceGroup::kData, NAN);
    parameters.back().tensor.set_requires_grad(false);
  }
  void add(const char* name, ReduceGroup group, double gradient) {
    auto tensor = at::zeros({2, 3}, at::kDouble).requires_grad_(true);
    if (!std::isnan(gradient)) tensor.mutable_grad() = at::full({2, 3}, gradient, at::kDouble);
    parameters.push_back({name, tensor, {.reduce_group = group}});
  }
  // The one value of a gradient; NaN without.
  double gradient(size_t i) const {
    const auto& g = parameters[i].tensor.grad();
    return g.defined() ? g.flatten()[0].item<double>() : NAN;
  }

  int rank;
  comm::RankGroups groups;
  std::vector<nn::TaggedParameter> parameters;
};

TEST(Gradients, are_summed_over_the_ranks_that_hold_the_parameter_and_never_divided) {
  comm::run_ranks(kRanks, [](comm::Communicator& world) {
    Rank r(world);
    optim::Gradients gradients(r.parameters, r.groups);
    gradients.sum_over_ranks();
    EXPECT_EQ(r.gradient(0), 1 + 2 + 3 + 4);
    EXPECT_EQ(r.gradient(1), r.rank % 2 ? 20 + 40 : 10 + 30);
    EXPECT_EQ(r.gradient(2), 5);
    EXPECT_TRUE(std::isnan(r.gradient(3))) << "a parameter without a gradient anywhere has none";
    EXPECT_TRUE(std::isnan(r.gradient(4)));
    // Every expert once, everything else once: six elements each.
    EXPECT_DOUBLE_EQ(gradients.norm(), std::sqrt(6.0 * (10 * 10 + 5 * 5 + 40 * 40 + 60 * 60)));
  });
}

TEST(Gradients, larger_than_a_bucket_and_of_two_types_are_summed) {
  comm::run_ranks(2, [](comm::Communicator& world) {
    std::vector<nn::TaggedParameter> parameters;
    for (const auto& [name, size, type] :
         {std::tuple("a", 3, at::kFloat), std::tuple("b", (1 << 22) + 1, at::kFloat),
          std::tuple("c", 5, at::kDouble), std::tuple("d", 7, at::kFloat)}) {
      auto tensor = at::zeros({size}, type).requires_grad_(true);
      tensor.mutable_grad() = at::full({size}, size + world.rank(), type);
      parameters.push_back({name, tensor, {}});
    }
    optim::Gradients(parameters, comm::make_groups(comm::borrowed(world), {})).sum_over_ranks();
    for (const auto& p : parameters) {
      EXPECT_EQ(p.tensor.grad()[0].item<double>(), 2.0 * static_cast<double>(p.tensor.size(0)) + 1) << p.name;
      EXPECT_EQ(p.tensor.grad()[-1].item<double>(), 2.0 * static_cast<double>(p.tensor.size(0)) + 1)
          << p.name;
    }
  });
}

// A model of three matrices in a row, of which the second is an expert's, whose loss is a sum over the ranks.
struct Chain {
  explicit Chain(comm::Communicator& world) : rank(world.rank()) {
    for (const auto& [name, group] :
         {std::pair("first", ReduceGroup::kData), std::pair("expert", ReduceGroup::kExpertData),
          std::pair("last", ReduceGroup::kData)}) {
      const auto value = at::arange(1, 13, at::kDouble).div(10).view({4, 3});
      parameters.push_back({name, value.clone().requires_grad_(true), {.reduce_group = group}});
    }
    parameters.push_back({"bias", at::arange(1, 6, at::kDouble).requires_grad_(true), {}});
  }
  at::Tensor loss(double input) const {
    const auto x = at::arange(1, 4, at::kDouble).mul(input + rank);
    const auto y = parameters[0].tensor.matmul(x).dot(parameters[1].tensor.matmul(x));
    return y.sin().add(parameters[2].tensor.sum().square()).add(parameters[3].tensor.square().sum());
  }
  int rank;
  std::vector<nn::TaggedParameter> parameters;
};

// Whether sent at the end or on the way, whole or shared out: the same sums, norm and updated parameters.
TEST(Gradients, are_the_same_whenever_they_are_sent_and_whoever_updates) {
  struct Result {
    std::vector<at::Tensor> values = {};
    double norm = 0;
  };
  const auto run = [](int64_t zero_stage, bool as_they_come) {
    Result result;
    comm::run_ranks(kRanks, [&](comm::Communicator& world) {
      Chain chain(world);
      const auto groups = comm::make_groups(comm::borrowed(world), {.expert = kExpertParallel});
      const auto shards = std::make_shared<optim::ParameterShards>(chain.parameters, groups, zero_stage);
      optim::Gradients gradients(shards);
      for (int step = 0; step < 2; ++step) {
        chain.loss(step + 1).backward();
        if (as_they_come) gradients.send_as_they_come();
        chain.loss(step + 2).backward();
        gradients.sum_over_ranks();
        const double norm = gradients.norm();
        {
          const c10::NoGradGuard no_grad;
          for (const auto& p : shards->owned()) {
            if (p.tensor.grad().defined()) p.tensor.sub_(p.tensor.grad(), 0.01 / norm);
            p.tensor.mutable_grad().reset();
          }
        }
        shards->gather();
        for (const auto& p : chain.parameters) EXPECT_FALSE(p.tensor.grad().defined()) << p.name;
        if (world.rank() == 0) result.norm = norm;
      }
      if (world.rank() != 0) return;
      for (const auto& p : chain.parameters) result.values.push_back(p.tensor.detach());
    });
    return result;
  };
  const auto expected = run(0, false);
  EXPECT_GT(expected.norm, 1.0);
  for (const int64_t stage : {0, 1}) {
    for (const bool on_the_way : {false, true}) {
      const auto got = run(stage, on_the_way);
      EXPECT_NEAR(got.norm, expected.norm, 1e-12 * expected.norm);
      for (size_t i = 0; i < expected.values.size(); ++i)
        EXPECT_LE((got.values[i] - expected.values[i]).abs().max().item<double>(), 1e-12)
            << stage << " " << i;
    }
  }
}

TEST(Gradients, leave_during_the_last_backward_pass_and_no_part_comes_later) {
  comm::run_ranks(2, [](comm::Communicator& world) {
    const auto traffic = std::make_shared<comm::Traffic>();
    const std::shared_ptr<comm::Communicator> counted =
        comm::count_traffic(comm::borrowed(world), {0, 0}, traffic);
    Chain chain(world);
    optim::Gradients gradients(chain.parameters, comm::make_groups(counted, {}));
    const int64_t before = traffic->calls;
    chain.loss(1).backward();
    EXPECT_EQ(traffic->calls, before) << "not the last one";
    gradients.send_as_they_come();
    chain.loss(2).backward();
    EXPECT_EQ(traffic->calls, before + 2) << "a bucket for each group";
    EXPECT_THROW(chain.loss(3).backward(), Error) << "the sum would lack it";
    gradients.sum_over_ranks();
    EXPECT_EQ(traffic->calls, before + 2);
    chain.loss(3).backward();  // the next step
    EXPECT_EQ(traffic->calls, before + 2);
  });
}

// The rows of every parameter are shared out once, no row is cut, and the shards are about as large.
TEST(ParameterShards, share_every_row_out_once) {
  comm::run_ranks(3, [](comm::Communicator& world) {
    std::vector<nn::TaggedParameter> parameters;
    const auto add = [&](std::vector<int64_t> shape, nn::ParamTag tag = {}) {
      parameters.push_back({"p", at::zeros(shape, at::kFloat).requires_grad_(true), tag});
    };
    add({});
    add({7});
    add({64, 5});
    add({1, 3});
    add({3, 10, 4}, {.expert_dim = 0, .reduce_group = ReduceGroup::kExpertData});
    add({3, 10}, {.expert_dim = 0, .reduce_group = ReduceGroup::kExpertData});
    add({2, 9, 2});
    const optim::ParameterShards shards(parameters, comm::make_groups(comm::borrowed(world), {}), 1);
    EXPECT_EQ(optim::count_rows(parameters[4]), 30);
    EXPECT_EQ(optim::count_rows(parameters[5]), 30);
    EXPECT_EQ(optim::count_rows(parameters[6]), 2);
    int64_t mine = 0, all = 0;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto& owned = shards.owned()[i].tensor;
      const auto rows = shards.owned_rows()[i];
      EXPECT_EQ(owned.size(0), rows.size());
      if (rows.size() > 0) {
        EXPECT_EQ(owned.const_data_ptr(), static_cast<const float*>(parameters[i].tensor.const_data_ptr()) +
                                              rows.begin * owned.size(1));
      }
      std::vector<int32_t> owners(static_cast<size_t>(optim::count_rows(parameters[i])), 0);
      std::fill(owners.begin() + rows.begin, owners.begin() + rows.end, 1);
      world.all_reduce({owners.data(), static_cast<int64_t>(owners.size()), comm::DataType::kInt32});
      EXPECT_EQ(std::count(owners.begin(), owners.end(), 1), optim::count_rows(parameters[i])) << i;
      mine += owned.numel();
      all += parameters[i].tensor.numel();
    }
    EXPECT_NEAR(static_cast<double>(mine), static_cast<double>(all) / 3, 2 * 18) << "a row at each end";
  });
}

}  // namespace
