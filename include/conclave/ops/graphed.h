// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace conclave::ops {

// A function of tensors, recorded on their device with its backward and then replayed: two launches, however
// many the function makes. What the host contributes (scalars, sizes, decisions) is that of the recording.
class Graphed {
 public:
  using Function = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

  // Runs `function` a few times and records it. It must be pure, and its gradients a function of the inputs
  // and of `parameters` alone.
  //   inputs      defined tensors on one device; those that require a gradient get one
  //   parameters  leaves that `function` reads; those that require a gradient get one
  // Throws Error: the device records nothing (the CPU), an input lies elsewhere, `function` waits for the
  // device or reads memory of the host, or a graph that holds a parameter is still alive.
  Graphed(const Function& function, const std::vector<at::Tensor>& inputs,
          const std::vector<at::Tensor>& parameters);

  // The function's outputs for other inputs of the same shapes and types. The next call overwrites them, and
  // gradients of parameters that torch::autograd::grad returned; whoever still wants gradients of them, or
  // wants them twice, gets an Error. From one thread at a time.
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& inputs) const;

  struct Recording;

 private:
  std::shared_ptr<Recording> recording_;
};

}  // namespace conclave::ops
