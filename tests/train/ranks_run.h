// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstring>

#include <ATen/ops/empty.h>
#include <ATen/ops/norm.h>

#include "comm/ranks.h"
#include "conclave/train/tensor_set.h"
#include "train/small_run.h"

namespace conclave::train {

struct Layout {
  int ranks = 1;
  int expert_parallel = 1;
};

// Small runs on several ranks, which are threads of this process.
class RanksRun : public SmallRun {
 protected:
  RanksRun()
      : SmallRun({"model.moe.num_experts=8", "training.global_batch_size=8", "training.micro_batch_size=1",
                  "training.train_iters=5"}) {}

  RunConfig read_for(const Layout& layout, const std::string& run, std::vector<std::string> overrides = {}) {
    overrides.push_back(fmt::format("parallelism.data_parallel_size={}", layout.ranks));
    overrides.push_back(fmt::format("parallelism.expert_parallel_size={}", layout.expert_parallel));
    return read(run, overrides);
  }

  // One rank of a run; called on all of `world`.
  TrainingResult train_rank(comm::Communicator& world, const Layout& layout, const RunConfig& config,
                            TrainerHooks hooks = {}) {
    const auto ranks = comm::make_groups(comm::borrowed(world), {.expert = layout.expert_parallel});
    const auto directory = RunDirectory::of_ranks(world, [&] { return open(config); });
    Trainer trainer(config, registry_, directory, std::move(hooks), ranks);
    trainers_.at(static_cast<size_t>(world.rank())) = &trainer;
    return trainer.run();
  }
  // `hooks_of` gives the hooks of a rank.
  TrainingResult train_on(const Layout& layout, const RunConfig& config,
                          const std::function<TrainerHooks(int rank)>& hooks_of = {}) {
    TrainingResult result;
    comm::run_ranks(layout.ranks, [&](comm::Communicator& world) {
      const auto mine = train_rank(world, layout, config, hooks_of ? hooks_of(world.rank()) : TrainerHooks{});
      if (world.rank() == 0) result = mine;
    });
    return result;
  }
  TrainingResult train_on(const Layout& layout, const std::string& run,
                          std::vector<std::string> overrides = {}) {
    return train_on(layout, read_for(layout, run, std::move(overrides)));
  }

  // Every metric of `run` and every tensor of the checkpoint agree to `tolerance` of their values.
  void expect_same_training(const std::string& run, const std::string& other, int64_t step,
                            double tolerance = 1e-9) {
    const auto a = metrics(run), b = metrics(other);
    for (const auto& [name, values] : a) {
      ASSERT_TRUE(b.count(name)) << name;
      ASSERT_EQ(values.size(), b.at(name).size()) << name;
      for (size_t i = 0; i < values.size(); ++i) {
        if (std::isnan(values[i]) && std::isnan(b.at(name)[i])) continue;
        EXPECT_NEAR(b.at(name)[i], values[i], tolerance * std::max(1e-3, std::abs(values[i])))
            << name << " " << i;
      }
    }
    for (const char* kind : {"model", "optimizer"}) {
      const TensorSet x(store(run).open(step), kind), y(store(other).open(step), kind);
      ASSERT_EQ(x.names(), y.names());
      for (const auto& name : x.names()) {
        const auto u = values_of(x.at(name)), v = values_of(y.at(name));
        EXPECT_LE((u - v).norm().item<double>(), tolerance * std::max(1e-12, u.norm().item<double>()))
            << name;
      }
    }
  }

  std::vector<Trainer*> trainers_ = std::vector<Trainer*>(8);  // by rank; valid inside hooks

 private:
  static at::Tensor values_of(const TensorView& view) {
    const auto values = at::empty(view.shape, view.dtype == "F32" ? at::kFloat : at::kDouble);
    std::memcpy(values.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    return values.to(at::kDouble);
  }
};

}  // namespace conclave::train
