// SPDX-License-Identifier: Apache-2.0
// Ranks whose models are on devices, staged through the host. An executable of its own, because it forks:
// torch computes gradients of a device in a thread of its own, which a fork loses and ranks of one process
// would share.
#include <gtest/gtest.h>

#include <ATen/ops/ones.h>

#include "conclave/comm/devices.h"
#include "conclave/moe/layer.h"
#include "conclave/moe/routers/topk.h"
#include "far/far_device.h"
#include "far/far_kernels.h"
#include "train/ranks_run.h"

namespace conclave::train {
namespace {

class FarMemory : public comm::DeviceMemory {
 public:
  void to_host(void* host, const void* device, int64_t bytes) override { copy(host, device, bytes); }
  void to_device(void* device, const void* host, int64_t bytes) override { copy(device, host, bytes); }
  void within(void* to, const void* from, int64_t bytes) override { copy(to, from, bytes); }

 private:
  static void copy(void* to, const void* from, int64_t bytes) {
    const far::Inside inside;
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
};

class FarRanks : public RanksRun {
 protected:
  // Processes, each with a device of its own.
  void train_on_devices(const Layout& layout, const std::string& run, std::vector<std::string> overrides = {},
                        bool emulated = false) {
    const auto config = read_for(layout, run, std::move(overrides));
    comm::run_gloo_ranks(
        layout.ranks,
        [&](comm::Communicator& world) {
          emulated ? far::install_emulated_kernels() : far::install_host_kernels();
          const auto memory = std::make_shared<FarMemory>();
          const std::shared_ptr<comm::Communicator> ranks =
              comm::host_and_device(comm::borrowed(world), comm::staged(comm::borrowed(world), memory));
          const auto groups = comm::make_groups(ranks, {.expert = layout.expert_parallel}, [&] {
            return std::shared_ptr<comm::Communicator>(comm::make_single_with_device(memory));
          });
          const auto directory = RunDirectory::of_ranks(world, [&] { return open(config); });
          Trainer(config, registry_, directory, {}, groups, far::kDevice).run();
        },
        std::chrono::seconds(120));
  }
};

// A layer with a capacity, forward and backward: with padding the host waits for nothing, without it for the
// counts of what is sent, once.
TEST_F(FarRanks, padded_to_the_capacity_nobody_waits) {
  comm::run_gloo_ranks(2, [&](comm::Communicator& world) {
    far::install_host_kernels();
    const auto memory = std::make_shared<FarMemory>();
    for (const bool pad : {true, false}) {
      moe::MoeLayer layer({.width = 8,
                           .num_experts = 6,
                           .expert_width = 12,
                           .expert_parallel = comm::host_and_device(
                               comm::borrowed(world), comm::staged(comm::borrowed(world), memory)),
                           .pad_to_capacity = pad},
                          moe::make_topk_router({.capacity = {.factor = config::Value(1.0), .min = 1}},
                                                {.width = 8, .num_experts = 6}));
      nn::initialise(layer, 0.7, 5);
      layer.to(far::kDevice);
      const auto x = at::ones({20, 8}).to(far::kDevice).requires_grad_(true);
      auto context = moe::ForwardContext::plain(20, moe::Phase::kTrain, far::kDevice);
      const auto before = far::counts();
      layer.run(x, context).square().sum().backward();
      EXPECT_EQ((far::counts() - before).waits, pad ? 0 : 1);
    }
  });
}

TEST_F(FarRanks, expert_parallel_runs_train_as_one_rank_on_the_host) {
  for (const char* dispatcher : {"all_to_all", "all_gather"}) {
    train_on_devices({2, 2}, dispatcher, {fmt::format("model.moe.dispatcher.type={}", dispatcher)});
  }
  train_on_devices({4, 2}, "shared_out",
                   {"parallelism.zero_stage=1", "model.moe.router.capacity.factor=1.0"});
  // The device's own sort, which leaves rows behind the last expert's.
  train_on_devices({2, 2}, "dropped", {"model.moe.router.capacity.factor=1.0", "training.train_iters=2"},
                   true);
  train_on_devices({2, 2}, "padded",
                   {"model.moe.dispatcher.pad_to_capacity=true", "model.moe.router.capacity.factor=1.0"});
  train_on_devices({2, 2}, "budget",
                   {"model.moe.dispatcher.rank_budget=40", "model.moe.dispatcher.on_overflow=drop"});

  train_on({1, 1}, "one");
  for (const char* run : {"all_to_all", "all_gather"}) {
    SCOPED_TRACE(run);
    expect_same_training("one", run, 5);
  }
  train_on({4, 2}, "shared_out_on_hosts",
           {"parallelism.zero_stage=1", "model.moe.router.capacity.factor=1.0"});
  expect_same_training("shared_out_on_hosts", "shared_out", 5);
  train_on({2, 2}, "counted_on_hosts", {"model.moe.router.capacity.factor=1.0"});
  train_on({2, 2}, "padded_on_hosts",
           {"model.moe.dispatcher.pad_to_capacity=true", "model.moe.router.capacity.factor=1.0"});
  expect_same_training("padded_on_hosts", "padded", 5);
  expect_near("counted_on_hosts", "padded", {"train/loss", "train/grad_norm", "moe/drop_rate", "final/loss"});
  train_on({2, 2}, "dropped_on_hosts", {"model.moe.router.capacity.factor=1.0", "training.train_iters=2"});
  expect_same_training("dropped_on_hosts", "dropped", 2);
  train_on({2, 2}, "budget_on_hosts",
           {"model.moe.dispatcher.rank_budget=40", "model.moe.dispatcher.on_overflow=drop"});
  expect_same_training("budget_on_hosts", "budget", 5);
}

}  // namespace
}  // namespace conclave::train
