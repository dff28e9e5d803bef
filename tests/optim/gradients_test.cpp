// SPDX-License-Identifier: Apache-2.0
// Sums and norm of gradients over ranks, against all of them on one.
#include "conclave/optim/gradients.h"

#include <cmath>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "conclave/comm/threads.h"

namespace {

using namespace conclave;
using nn::ReduceGroup;

constexpr int kRanks = 4, kExpertParallel = 2;

// Four ranks, two halves of the experts, each half on two ranks.
struct Rank {
  explicit Rank(comm::Communicator& world)
      : rank(world.rank()),
        groups(comm::make_groups(std::shared_ptr<comm::Communicator>(&world, [](auto*) {}),
                                 {.expert = kExpertParallel})) {
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
    optim::Gradients(parameters,
                     comm::make_groups(std::shared_ptr<comm::Communicator>(&world, [](auto*) {}), {}))
        .sum_over_ranks();
    for (const auto& p : parameters) {
      EXPECT_EQ(p.tensor.grad()[0].item<double>(), 2.0 * static_cast<double>(p.tensor.size(0)) + 1) << p.name;
      EXPECT_EQ(p.tensor.grad()[-1].item<double>(), 2.0 * static_cast<double>(p.tensor.size(0)) + 1)
          << p.name;
    }
  });
}

}  // namespace
