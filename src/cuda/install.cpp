// SPDX-License-Identifier: Apache-2.0
#include "conclave/cuda/install.h"

#include <algorithm>
#include <cstdint>

#include <ATen/core/Tensor.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include "conclave/comm/devices.h"
#include "conclave/comm/nccl.h"
#include "conclave/core/error.h"
#include "conclave/cuda/graphs.h"
#include "conclave/cuda/kernels.h"
#include "conclave/cuda/nccl.h"
#include "torch_library.h"

namespace conclave::cuda {

namespace {

constexpr auto kGpu = c10::DeviceType::CUDA;

// The stream that ATen computes in on the current device.
CUstream_st* current_stream() {
  const auto* gpus = c10::impl::getDeviceGuardImpl(kGpu);
  return static_cast<CUstream_st*>(gpus->getStream(gpus->getDevice()).native_handle());
}

// Of the weakest GPU, since any of them may be used.
int compute_capability(int num_gpus) {
  int weakest = INT32_MAX;
  for (int gpu = 0; gpu < num_gpus; ++gpu) {
    int major = 0, minor = 0;
    (void)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu);
    (void)cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, gpu);
    weakest = std::min(weakest, 10 * major + minor);
  }
  return weakest;
}

std::string install() {
  int driver = 0, runtime = 0, num_gpus = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "this machine has no GPU: no NVIDIA driver is loaded";
  const auto code = cudaGetDeviceCount(&num_gpus);
  if (code == cudaErrorInsufficientDriver) {
    const auto text = [](int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); };
    return fmt::format("the NVIDIA driver knows CUDA {}, and this program needs {}: install a newer driver",
                       text(driver), text(runtime));
  }
  if (code == cudaErrorNoDevice || (code == cudaSuccess && num_gpus == 0))
    return "no GPU is visible: look at nvidia-smi and CUDA_VISIBLE_DEVICES";
  if (code != cudaSuccess) return fmt::format("no GPU can be used: {}", cudaGetErrorString(code));
  const int capability = compute_capability(num_gpus);
  if (capability / 10 < 8 || capability / 10 > 10) {
    return fmt::format("the kernels were built for {}, and a GPU has compute capability {}.{}",
                       CONCLAVE_BUILT_FOR_GPUS, capability / 10, capability % 10);
  }
  if (auto why = load_torch_cuda(); !why.empty()) return why;
  const bool hopper = capability == 90 || capability / 10 == 10;
  ops::install_kernels(
      kGpu, make_kernels(current_stream, {.grouped_bf16 = hopper, .flash_attention = true, .graphs = [] {
                                            return make_graphs(make_graph_api(current_stream));
                                          }}));
  return "";
}

}  // namespace

void offer() {
  ops::offer_device(kGpu, install);
}

std::shared_ptr<comm::Communicator> with_gpus(std::shared_ptr<comm::Communicator> host,
                                              const RankOptions& options) {
  if (!options.nccl) {
    return comm::host_and_device(host, comm::staged(host, make_device_memory(current_stream)));
  }
  return comm::host_and_device(
      host, comm::connect_nccl(make_nccl(), make_device(current_stream), host,
                               {.timeout = options.timeout, .on_failure = options.on_failure}));
}

std::shared_ptr<comm::Communicator> single_with_gpu() {
  return comm::make_single_with_device(make_device_memory(current_stream));
}

}  // namespace conclave::cuda
