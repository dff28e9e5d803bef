// SPDX-License-Identifier: Apache-2.0
// Runs on a GPU against the host.
#include <optional>

#include "cuda/gpu.h"
#include "train/small_run.h"

namespace conclave::train {
namespace {

class RunOnGpu : public SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    CONCLAVE_NEEDS_GPU();
  }
  void train_on_gpu(const RunConfig& config) {
    const RunDirectory directory = open(config);
    Trainer(config, registry_, directory, {}, comm::single_rank(cuda::single_with_gpu),
            open_device(Device::kCuda))
        .run();
  }
  void expect_as_on_host(const std::string& name, const std::vector<std::string>& overrides,
                         double tolerance) {
    train(read("host_" + name, overrides));
    train_on_gpu(read(name, overrides));
    const auto host = metrics("host_" + name), gpu = metrics(name);
    for (const char* series : {"train/loss", "train/grad_norm", "final/loss"}) {
      ASSERT_EQ(gpu.at(series).size(), host.at(series).size());
      for (size_t i = 0; i < host.at(series).size(); ++i)
        EXPECT_NEAR(gpu.at(series)[i], host.at(series)[i], tolerance * host.at(series)[i])
            << series << " " << i;
    }
  }
};

TEST_F(RunOnGpu, trains_as_on_the_host) {
  expect_as_on_host("fp64", {}, 1e-9);
  expect_as_on_host("fp32", {"training.precision=fp32"}, 1e-3);
  expect_as_on_host("bf16",
                    {"training.precision=bf16", "model.hidden_size=24", "model.num_key_value_heads=1",
                     "model.moe.moe_intermediate_size=16"},
                    5e-2);
}

TEST_F(RunOnGpu, a_checkpoint_continues_on_the_host) {
  train(read("whole"));
  train_on_gpu(read("there", {"training.exit_after=3"}));
  train(read("there"));
  expect_near("whole", "there", {"final/loss"});
}

}  // namespace
}  // namespace conclave::train
