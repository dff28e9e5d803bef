// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <list>
#include <utility>
#include <vector>

#include "conclave/moe/forward_context.h"
#include "conclave/ops/graphed.h"

namespace conclave::moe {

// The training pass of a layer as recordings of its device, one for every size of input (ops/graphed.h).
class RecordedPass {
 public:
  using Pass = std::function<at::Tensor(const at::Tensor& x_RD, ForwardContext& context)>;

  // pass(x_RD, context), whose trace is appended; recorded where it has not been with such an x. Every row is
  // a unit. `state`: all tensors that `pass` reads beside; recorded anew where one of them has moved.
  at::Tensor run(const at::Tensor& x_RD, ForwardContext& context, const std::vector<at::Tensor>& state,
                 const Pass& pass);

 private:
  struct Key {
    int64_t num_rows = 0, num_sequences = 0;
    c10::ScalarType dtype = c10::ScalarType::Float;
    bool wants_x = false;
    std::vector<std::pair<const void*, bool>> state = {};  // where it is, whether it gets a gradient
    bool operator==(const Key&) const = default;
  };
  struct Recorded {
    Key key = {};
    RouterTrace trace = {};
    std::unique_ptr<ops::Graphed> pass = {};
  };
  Recorded& recorded(const Key& key, const at::Tensor& x_RD, const ForwardContext& context,
                     const std::vector<at::Tensor>& state, const Pass& pass);

  std::list<Recorded> all_;
};

}  // namespace conclave::moe
