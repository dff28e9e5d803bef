// SPDX-License-Identifier: Apache-2.0
// The allocator is reached through its virtual functions alone: this program is not linked with the library
// that has it.
#include <atomic>
#include <map>
#include <mutex>

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/cuda/graphs.h"

namespace conclave::cuda {

namespace {

constexpr auto kCuda = c10::DeviceType::CUDA;

void check_graph(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  (void)cudaGetLastError();  // it was told
  const auto text =
      fmt::format("CUDA graphs: {} failed: {} ({})", what, cudaGetErrorString(code), cudaGetErrorName(code));
  TORCH_CHECK_WITH(OutOfMemoryError, code != cudaErrorMemoryAllocation, text);
  throw Error(text);
}

// Apart from the numbers that LibTorch gives its own graphs, which count up from 1.
c10::MempoolId_t next_pool() {
  static std::atomic<uint64_t> next{uint64_t{1} << 48};
  return {next++, 0};
}

// One for all recordings, so that what the allocator keeps for it is kept once.
c10::Stream aside_on(c10::Device device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  const std::lock_guard lock(mutex);
  const auto found = streams.find(device.index());
  if (found != streams.end()) return found->second;
  const auto* gpus = c10::impl::getDeviceGuardImpl(kCuda);
  return streams.emplace(device.index(), gpus->getStreamFromGlobalPool(device, /*isHighPriority=*/false))
      .first->second;
}

class CudaGraphApi : public GraphApi {
 public:
  explicit CudaGraphApi(cudaStream_t (*current)())
      : current_(current), device_(gpus().getDevice()), aside_(aside_on(device_)), pool_(next_pool()) {}

  void enter() override {
    check_graph(cudaStreamSynchronize(current_()), "waiting for what was launched");
    before_ = gpus().exchangeStream(aside_);
  }
  void leave() noexcept override {
    (void)cudaStreamSynchronize(stream());
    gpus().exchangeStream(before_);
  }

  void begin_pool() override {
    allocator().emptyCache();  // of what rehearsals left
    allocator().beginAllocateToPool(device_.index(), pool_,
                                    [mine = stream()](cudaStream_t stream) { return stream == mine; });
  }
  void end_pool() noexcept override { allocator().endAllocateToPool(device_.index(), pool_); }
  void release_pool() noexcept override { allocator().releasePool(device_.index(), pool_); }

  // Other threads may do as they like: what watches, loads and saves does not stand still.
  void begin_capture() override {
    check_graph(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "beginning to record");
  }
  Executable end_capture() override {
    cudaGraph_t graph = nullptr;
    check_graph(cudaStreamEndCapture(stream(), &graph), "recording");
    cudaGraphExec_t executable = nullptr;
    const auto code = cudaGraphInstantiate(&executable, graph, 0);
    (void)cudaGraphDestroy(graph);
    check_graph(code, "making a recording ready");
    return Executable{reinterpret_cast<uintptr_t>(executable)};
  }
  void abandon_capture() noexcept override {
    cudaGraph_t graph = nullptr;
    (void)cudaStreamEndCapture(stream(), &graph);
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
  }

  void launch(Executable graph) override {
    check_graph(cudaGraphLaunch(as_graph(graph), current_()), "launching a recording");
  }
  void release(Executable graph) noexcept override { (void)cudaGraphExecDestroy(as_graph(graph)); }

 private:
  static const c10::impl::DeviceGuardImplInterface& gpus() { return *c10::impl::getDeviceGuardImpl(kCuda); }
  static c10::cuda::CUDACachingAllocator::CUDAAllocator& allocator() {
    return static_cast<c10::cuda::CUDACachingAllocator::CUDAAllocator&>(*c10::GetAllocator(kCuda));
  }
  static cudaGraphExec_t as_graph(Executable graph) {
    return reinterpret_cast<cudaGraphExec_t>(static_cast<uintptr_t>(graph));
  }
  cudaStream_t stream() const { return static_cast<cudaStream_t>(aside_.native_handle()); }

  cudaStream_t (*current_)();
  c10::Device device_;
  c10::Stream aside_, before_ = aside_;
  c10::MempoolId_t pool_;
};

}  // namespace

std::unique_ptr<GraphApi> make_graph_api(CUstream_st* (*current_stream)()) {
  return std::make_unique<CudaGraphApi>(current_stream);
}

}  // namespace conclave::cuda
