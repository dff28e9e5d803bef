// SPDX-License-Identifier: Apache-2.0
// The forward pass of generation: a few new tokens behind those whose keys and values are cached.
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include "conclave/core/error.h"
#include "conclave/model/language_model.h"
#include "conclave/ops/product.h"

namespace conclave::model {

at::Tensor LanguageModel::extend(std::span<const int32_t> tokens, DecodeState& state,
                                 moe::ForwardContext& context) {
  CONCLAVE_CHECK(!tokens.empty(), "LanguageModel::extend: no tokens");
  CONCLAVE_CHECK(
      options_.objective == Objective::kCausalLm,
      "LanguageModel::extend: a masked language model looks at later tokens and cannot be continued");
  const c10::NoGradGuard no_grad;
  const auto count = static_cast<int64_t>(tokens.size()), first = state.length;
  state.layers.resize(blocks_.size());
  context.tokens = {.num_rows = count,
                    .num_units = count,
                    .sequence_of_unit_U = at::zeros({count}, at::TensorOptions(at::kLong).device(device())),
                    .group_of_unit_U = at::zeros({count}, at::kLong),
                    .global_id_U = at::arange(first, first + count, at::kLong),
                    .num_sequences = 1};
  const auto attention = nn::continued_attention_input(first, count, attention_shape());
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  auto x_BSD =
      at::embedding(embedding_, at::tensor(ids, at::kLong).unsqueeze(0).to(device())).to(activations_);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    x_BSD = blocks_[layer]->run(x_BSD, attention, context, &state.layers[layer]);
  }
  state.length += count;
  return ops::linear(norm_->forward(x_BSD).squeeze(0), head());
}

}  // namespace conclave::model
