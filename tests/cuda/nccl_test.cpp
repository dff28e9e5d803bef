// SPDX-License-Identifier: Apache-2.0
// The real libraries. Without a GPU: how they say so. With one: a single rank, whose operations are copies.
#include "conclave/cuda/nccl.h"

#include <cuda_runtime.h>

#include <numeric>

#include "comm/ranks.h"
#include "conclave/comm/nccl.h"
#include "cuda/gpu.h"

namespace conclave::cuda {
namespace {

bool has_gpu() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}
cudaStream_t default_stream() {
  return nullptr;
}

TEST(RealNccl, is_the_version_of_its_header_and_gives_an_id) {
  const auto nccl = make_nccl();
  EXPECT_EQ(nccl->version(), nccl->built_version());
  comm::NcclId id = {};
  EXPECT_EQ(nccl->unique_id(id).kind, comm::NcclResult::Kind::kOk);
  EXPECT_NE(id, comm::NcclId{});
}

TEST(RealNccl, without_a_gpu_one_clear_error) {
  if (has_gpu()) GTEST_SKIP() << "there is one";
  try {
    make_device(default_stream);
    ADD_FAILURE() << "a device was made";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("CUDA: the device failed"), std::string::npos) << error.what();
  }
  float value = 0;
  EXPECT_THROW(make_device_memory(default_stream)->to_host(&value, &value, sizeof value), Error);
  const auto nccl = make_nccl();
  comm::NcclHandle handle = nullptr;
  comm::NcclId id = {};
  ASSERT_EQ(nccl->unique_id(id).kind, comm::NcclResult::Kind::kOk);
  auto result = nccl->init(handle, 1, id, 0);
  while (result.kind == comm::NcclResult::Kind::kInProgress) result = nccl->async_error(handle);
  EXPECT_EQ(result.kind, comm::NcclResult::Kind::kFailed);
  EXPECT_NE(result.text.find("cuda"), std::string::npos) << result.text;
}

TEST(RealNccl, a_single_rank_moves_device_memory) {
  CONCLAVE_NEEDS_GPU();
  const std::shared_ptr<comm::Communicator> host = comm::make_single_communicator();
  const auto ranks = comm::connect_nccl(make_nccl(), make_device(default_stream), host, {});
  constexpr int64_t kCount = 1009;
  std::vector<float> values(kCount);
  std::iota(values.begin(), values.end(), 1.0f);
  float* device = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&device), 2 * kCount * sizeof(float)), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(device, values.data(), kCount * sizeof(float), cudaMemcpyHostToDevice), cudaSuccess);
  const std::vector<int64_t> counts = {kCount};
  ranks->all_to_all({device, kCount, comm::DataType::kFloat32, comm::Place::kDevice}, counts,
                    {device + kCount, kCount, comm::DataType::kFloat32, comm::Place::kDevice}, counts);
  ranks->all_reduce({device + kCount, kCount, comm::DataType::kFloat32, comm::Place::kDevice});
  std::vector<float> arrived(kCount);
  ASSERT_EQ(cudaMemcpy(arrived.data(), device + kCount, kCount * sizeof(float), cudaMemcpyDeviceToHost),
            cudaSuccess);
  EXPECT_EQ(arrived, values);
  ASSERT_EQ(cudaMemset(device + kCount, 0, kCount * sizeof(float)), cudaSuccess);
  ranks->all_to_all_equal({device, kCount, comm::DataType::kFloat32, comm::Place::kDevice},
                          {device + kCount, kCount, comm::DataType::kFloat32, comm::Place::kDevice});
  ASSERT_EQ(cudaMemcpy(arrived.data(), device + kCount, kCount * sizeof(float), cudaMemcpyDeviceToHost),
            cudaSuccess);
  EXPECT_EQ(arrived, values);
  ASSERT_EQ(cudaFree(device), cudaSuccess);
}

TEST(RealDeviceMemory, copies_there_within_and_back) {
  CONCLAVE_NEEDS_GPU();
  const auto memory = make_device_memory(default_stream);
  constexpr int64_t kCount = 1009, kBytes = kCount * sizeof(float);
  std::vector<float> values(kCount), arrived(kCount);
  std::iota(values.begin(), values.end(), 1.0f);
  float* device = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&device), 3 * kBytes), cudaSuccess);
  memory->to_device(device, values.data(), kBytes);
  memory->within(device + kCount, device, kBytes);
  const auto ranks = comm::make_single_with_device(memory);
  ranks->all_gather({device + kCount, kCount, comm::DataType::kFloat32, comm::Place::kDevice},
                    {device + 2 * kCount, kCount, comm::DataType::kFloat32, comm::Place::kDevice});
  memory->to_host(arrived.data(), device + 2 * kCount, kBytes);
  EXPECT_EQ(arrived, values);
  ASSERT_EQ(cudaFree(device), cudaSuccess);
}

}  // namespace
}  // namespace conclave::cuda
