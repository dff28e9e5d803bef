// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>

#include "conclave/ops/device_graphs.h"

struct CUstream_st;

namespace conclave::cuda {

enum class Executable : uintptr_t {};  // a graph that can be launched

// What recordings need of CUDA and of LibTorch's allocator, for one device. Everything throws Error, but what
// undoes.
class GraphApi {
 public:
  virtual ~GraphApi() = default;
  // Computes in another stream until leave(), behind what the current one did.
  virtual void enter() = 0;
  virtual void leave() noexcept = 0;
  // Tensors that are made in that stream until end_pool() get the memory of these recordings.
  virtual void begin_pool() = 0;
  virtual void end_pool() noexcept = 0;
  virtual void release_pool() noexcept = 0;  // once for every begin_pool()
  virtual void begin_capture() = 0;
  virtual Executable end_capture() = 0;
  virtual void abandon_capture() noexcept = 0;
  // In the stream that the caller computes in.
  virtual void launch(Executable graph) = 0;
  virtual void release(Executable graph) noexcept = 0;
};

// Of the current device. `current_stream`: the stream that the caller computes in, asked for at every launch.
std::unique_ptr<GraphApi> make_graph_api(CUstream_st* (*current_stream)());

std::unique_ptr<ops::DeviceGraphs> make_graphs(std::unique_ptr<GraphApi> api);

}  // namespace conclave::cuda
