// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/cuda/nccl.h"

namespace conclave::cuda {

namespace {

using comm::DeviceEvent;
using comm::DeviceStream;

cudaStream_t as_stream(DeviceStream stream) {
  return reinterpret_cast<cudaStream_t>(stream);
}
cudaEvent_t as_event(DeviceEvent event) {
  return reinterpret_cast<cudaEvent_t>(event);
}

void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  throw Error(
      fmt::format("CUDA: {} failed: {} ({})", what, cudaGetErrorString(code), cudaGetErrorName(code)));
}

class Device : public comm::DeviceApi {
 public:
  explicit Device(cudaStream_t (*current)()) : current_(current) {
    check(cudaGetDevice(&device_), "the device");
  }

  DeviceStream current_stream() override { return reinterpret_cast<DeviceStream>(current_()); }
  // Ahead of what computes, so that messages leave while it goes on.
  DeviceStream make_stream() override {
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "the range of priorities");
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), "a stream");
    return reinterpret_cast<DeviceStream>(stream);
  }
  void release(DeviceStream stream) override { (void)cudaStreamDestroy(as_stream(stream)); }
  DeviceEvent record(DeviceStream stream) override {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
    const auto code = cudaEventRecord(event, as_stream(stream));
    if (code != cudaSuccess) (void)cudaEventDestroy(event);
    check(code, "recording an event");
    return reinterpret_cast<DeviceEvent>(event);
  }
  void wait(DeviceStream stream, DeviceEvent event) override {
    check(cudaStreamWaitEvent(as_stream(stream), as_event(event), 0), "waiting for an event");
  }
  // Asked by a thread that watches: it must not disturb the capture of a graph elsewhere.
  bool is_done(DeviceEvent event) override {
    (void)cudaSetDevice(device_);
    auto mode = cudaStreamCaptureModeRelaxed;
    (void)cudaThreadExchangeStreamCaptureMode(&mode);
    const auto code = cudaEventQuery(as_event(event));
    (void)cudaThreadExchangeStreamCaptureMode(&mode);
    if (code == cudaErrorNotReady) return false;
    check(code, "an operation before this event");
    return true;
  }
  void release(DeviceEvent event) override { (void)cudaEventDestroy(as_event(event)); }

 private:
  cudaStream_t (*current_)();
  int device_ = 0;
};

class Memory : public comm::DeviceMemory {
 public:
  explicit Memory(cudaStream_t (*current)()) : current_(current) {}

  void to_host(void* host, const void* device, int64_t bytes) override {
    copy_and_wait(host, device, bytes, cudaMemcpyDeviceToHost, "a copy to the host");
  }
  void to_device(void* device, const void* host, int64_t bytes) override {
    copy_and_wait(device, host, bytes, cudaMemcpyHostToDevice, "a copy to the device");
  }
  void within(void* to, const void* from, int64_t bytes) override {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, current_()),
          "a copy within the device");
  }

 private:
  void copy_and_wait(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind, const char* what) {
    const auto stream = current_();
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream), what);
    check(cudaStreamSynchronize(stream), what);
  }

  cudaStream_t (*current_)();
};

}  // namespace

std::shared_ptr<comm::DeviceApi> make_device(CUstream_st* (*current_stream)()) {
  return std::make_shared<Device>(current_stream);
}

std::shared_ptr<comm::DeviceMemory> make_device_memory(CUstream_st* (*current_stream)()) {
  return std::make_shared<Memory>(current_stream);
}

}  // namespace conclave::cuda
